from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from atr_moco_plugin.analysis import analyse
from atr_moco_plugin.analysis.page import page, write_page
from atr_moco_plugin.errors import InputError

SHARED = [
    "Shared axes", "Retrieval by axes kept", "Principal angles", "Overlap of the principal axes",
    "Cosines",
]  # fmt: skip
SPECTRA = ["Singular values, raw", "Singular values, centred"]


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def figures(text: str) -> list[str]:
    return re.findall(r"<figure>\n<h3>(.*?)</h3>", text)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    audio = gaussian(200, 12)
    return analyse(audio, audio + gaussian(200, 12, seed=1))


def test_the_page_has_every_figure_and_table(result: dict[str, Any], tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", json.loads(json.dumps(result)), "Ours <b>")
    text = (tmp_path / "a.html").read_text("utf-8")
    assert figures(text) == SPECTRA + SHARED
    assert "<h1>Ours &lt;b&gt;</h1>" in text and text == page(result, "Ours <b>")
    for caption in ("Rank, beside", "Each side alone, beside", "What both", "Retrieval by cosine"):
        assert f"<h3>{caption}" in text
    assert f"<td>{result['gap']['value']:.3f}</td>" in text
    assert "200 rows of 12 numbers" in text and "200, row by row" in text
    # One file that asks nobody for anything.
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_one_side_and_two_spaces_have_what_there_is() -> None:
    alone = page(analyse(gaussian(30, 4), names=("sentences", "no")), "x")
    assert figures(alone) == SPECTRA and "Both sides together" not in alone
    assert "<dt>sentences</dt><dd>30 rows of 4 numbers</dd>" in alone
    apart = page(analyse(gaussian(30, 4), gaussian(30, 5)), "x")
    assert figures(apart) == SPECTRA + SHARED[:2]
    assert "they are in different spaces" in apart
    few = page(analyse(gaussian(2, 3), gaussian(2, 3, seed=1)), "x")
    assert "Retrieval by cosine" in few and "; axes of" not in few


def test_names_and_notes_that_try_to_be_markup_are_text(result: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    audio = gaussian(40, 4)
    text = page(analyse(3 * audio, audio + 1, names=(evil, "{{ 7 * 7 }}")), evil)
    assert "<script" not in text and "{{ 7 * 7 }}" in text


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_a_package_it_says_how_to_get_it(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    ours = ("atr_moco_plugin.report", "atr_moco_plugin.analysis.figures")
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith(ours):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"^The page needs {package}; install it with `pip "):
        write_page(tmp_path / "a.html", result, "x")
    assert not (tmp_path / "a.html").exists()
