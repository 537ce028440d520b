"""Every Python block of docs/other_libraries.md runs where its library is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docs.pages import Block, blocks
from tiny_bundle import make_bundle, make_clap_bundle, noise, write_noise

from atr_moco_plugin.exporting import EXPORTERS
from atr_moco_plugin.retriever import AudioTextRetriever

PAGE = "docs/other_libraries.md"


def _write(form: str, bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    EXPORTERS[form](retriever, Path("OUT"))


def _run(found: list[Block], names: dict[str, Any]) -> dict[str, Any]:
    for block in found:
        exec(compile("\n" * (block.line - 1) + block.text, PAGE, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_has_no_other_blocks() -> None:
    libraries = ("sentence_transformers", "mteb.models", "onnxruntime", "transformers")
    for block in blocks(PAGE, "python"):
        assert any(f"{x} import" in block.text or f"import {x}" in block.text for x in libraries)


def test_sentence_transformers_and_mteb(tmp_path: Path) -> None:
    for library in ("sentence_transformers", "mteb"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    found = [x for x in blocks(PAGE, "python") if "SentenceTransformer" in x.text]
    _write("sentence-transformers", make_bundle(tmp_path / "bundle"))
    write_noise(Path("dog.wav"), 1.5)
    names = _run(found, {"waveform": noise(44_100)})
    assert names["sentences"].shape == names["sounds"].shape == (2, 12)
    assert names["encoder"].mteb_model_meta.modalities == ["audio", "text"]


def test_clap_model(tmp_path: Path) -> None:
    _write("clap", make_clap_bundle(tmp_path / "bundle"))
    found = [x for x in blocks(PAGE, "python") if "import ClapModel" in x.text]
    assert _run(found, {})["clap"].config.projection_dim == 12


@pytest.mark.slow
def test_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    _write("onnx", make_bundle(tmp_path / "bundle"))
    found = [x for x in blocks(PAGE, "python") if "import onnxruntime" in x.text]
    assert _run(found, {})["embeddings"].shape == (2, 12)
    assert "waveforms" in capsys.readouterr().out
