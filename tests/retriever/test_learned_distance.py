"""Bundles that rank by a learned distance, in everything that is made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from docs.pages import run_python
from tiny_bundle import SENTENCES, make_bundle, make_clap_bundle, noise
from torch.testing import assert_close

from atr_moco_plugin.learned_distance import LearnedDistance, distance_kind
from atr_moco_plugin.retriever import AudioTextRetriever, write_bundle
from atr_moco_plugin.retriever.loading import load_backbone
from atr_moco_plugin.search.build import build, index_info
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.sources import list_sounds

FULL = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))


def with_distance(bundle: Path, out: Path, factor: torch.Tensor) -> Path:
    """The same model with a last layer."""
    backbone = load_backbone(bundle)
    backbone.model.rank_by_distance(factor)
    config = replace(backbone.config, distance=distance_kind(factor))
    parts = backbone.model, backbone.tokenizer, backbone.feature_extractor
    write_bundle(out, config, *parts)
    return out


@pytest.mark.parametrize("factor", [FULL, FULL[0]], ids=["full", "diagonal"])
@pytest.mark.parametrize("make", [make_bundle, make_clap_bundle], ids=["retrieval", "clap"])
def test_it_embeds_what_ranks_by_the_distance(make, factor, tmp_path: Path) -> None:
    bundle = make(tmp_path / "plain")
    plain = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    bundle = with_distance(bundle, tmp_path / "mapped", factor)
    mapped = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    clips = [noise(plain.sample_rate // 2, seed=i) for i in range(3)]
    for side in ("audio", "text"):
        embed = "embed_windows" if side == "audio" else "embed_text"
        inputs = clips if side == "audio" else SENTENCES
        expected = torch.as_tensor(getattr(plain, embed)(inputs))
        found = torch.as_tensor(getattr(mapped, embed)(inputs))
        assert found.shape == (3, mapped.embed_dim) == (3, 16)
        assert_close(found, LearnedDistance(factor, side)(expected), atol=1e-6, rtol=1e-5)

    # Saved again it is the same model, and another one than the plain one.
    mapped.save_pretrained(tmp_path / "again")
    again = AudioTextRetriever.from_pretrained(tmp_path / "again", device="cpu")
    assert again.fingerprint == mapped.fingerprint != plain.fingerprint
    assert torch.equal(again.embed_text(SENTENCES), mapped.embed_text(SENTENCES))


def test_a_bundle_without_one_is_as_it_was(tmp_path: Path) -> None:
    """Earlier versions read it, and an index of it is still its own."""
    content = json.loads((make_bundle(tmp_path / "bundle") / "config.json").read_text())
    assert "distance" not in content


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_distance(make_bundle(tmp_path / "plain"), tmp_path / "BUNDLE", FULL)
    soundfile.write("a.wav", noise(16_000), 16_000)
    names = run_python("docs/learned_distance.md")
    assert names["scores"].shape == (1, 1) and -1 <= float(names["scores"]) < 0


def test_an_onnx_file_ranks_by_it_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from atr_moco_plugin.exporting import export_onnx

    bundle = with_distance(make_bundle(tmp_path / "plain"), tmp_path / "mapped", FULL)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    export_onnx(retriever, tmp_path / "onnx")  # it compares both files with the model
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["embed_dim"] == 16 and config["distance"] == "full"
    assert "ranks by a learned distance" in (tmp_path / "onnx" / "README.md").read_text()
    assert max(config[x]["greatest_difference"] for x in ("audio", "text")) < 1e-5


def squares(x: torch.Tensor, y: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """-D^2 / (4 s) in float64."""
    difference = x.double()[:, None] - y.double()[None]
    scale = 4 * torch.linalg.matrix_norm(factor.double(), 2) ** 2
    return -(difference @ factor.double().T).square().sum(2) / scale


def test_an_index_a_sound_and_the_mean_of_windows_go_by_the_distance(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "plain")
    plain = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    bundle = with_distance(bundle, tmp_path / "mapped", FULL)
    mapped = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    rate = plain.sample_rate
    sounds = [
        noise(rate // 2, seed=i) * (1 + np.sin(np.arange(rate // 2) * i / 90)) for i in range(8)
    ]
    (tmp_path / "sounds").mkdir()
    for i, x in enumerate(sounds):
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", x / 10, rate, subtype="FLOAT")
    files = [tmp_path / "sounds" / f"{i}.wav" for i in range(8)]
    a, u = plain.embed_audio(files), plain.embed_text(SENTENCES)

    index = tmp_path / "index"
    with open_index(index, write=True, info=index_info(mapped)) as store:
        build(store, mapped, list_sounds(tmp_path / "sounds"))
    for query, expected in (
        *zip(SENTENCES, squares(u, a, FULL), strict=True),
        *zip(mapped.embed_audio(files).split(1), squares(a, a, FULL), strict=True),
    ):
        hits = mapped.search(query, index, 8)
        found = [int(Path(hit.recording.path).stem) for hit in hits]
        assert found[0] == int(expected.argmax()) and sorted(found) == list(range(8))
        # An index keeps float16.
        cosines = [hit.cosine for hit in hits]
        assert cosines == sorted(cosines, reverse=True)
        assert_close(cosines, expected[found].tolist(), atol=1e-4, rtol=0)

    # Two windows, as long as the window each.
    whole = [noise(rate, seed=i) for i in range(4)]
    long = [np.concatenate(whole[:2]), np.concatenate(whole[2:])]
    expected = squares(plain.embed_audio([(x, rate) for x in whole]), u, FULL).view(2, 2, 3).mean(1)
    embeddings = mapped.embed_audio([(x, rate) for x in long])
    assert_close(
        (embeddings @ mapped.embed_text(SENTENCES).T).double(), expected, atol=1e-6, rtol=0
    )
    labels = {"one": SENTENCES[:2], "two": SENTENCES[2:]}
    scores = mapped.classify([(x, rate) for x in long], labels, reduce="mean").cosines.double()
    by_label = torch.stack([expected[:, :2].mean(1), expected[:, 2]], dim=1)
    assert_close(scores, by_label, atol=1e-6, rtol=0)
