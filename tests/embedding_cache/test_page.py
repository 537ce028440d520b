"""The code of docs/cached.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cache_parts import frozen_model, tokenize
from docs.pages import run_python

from atr_moco_plugin.data.dataset import AudioTextDataset


def test_the_page_runs(
    sounds: Callable[..., AudioTextDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "model": frozen_model(audio=False, text=False).train(),
        "dataset": sounds(),
        "tokenize": tokenize,
    }
    found = run_python("docs/cached.md", given)
    assert found["losses"]["loss"].isfinite() and found["batch"].audio.keys() == {"pooled"}
    assert (tmp_path / "cache" / "clips-train" / "index.json").exists()
