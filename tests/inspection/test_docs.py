"""docs/inspect.md runs and names all kinds of findings."""

from __future__ import annotations

import pytest
from docs.pages import read, run_python

from atr_moco_plugin.inspection.findings import Finding
from atr_moco_plugin.inspection.kinds import AUDIO_KINDS, CAPTION_KINDS


def test_the_page_runs(capfd: pytest.CaptureFixture[str]) -> None:
    names = run_python("docs/inspect.md")
    assert all(isinstance(finding, Finding) for finding in names["inspection"].findings)


def test_the_page_names_every_kind() -> None:
    text = read("docs/inspect.md")
    for kind in (*AUDIO_KINDS, *CAPTION_KINDS):
        assert f"`{kind}`" in text, kind
