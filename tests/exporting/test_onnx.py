"""Towers as ONNX files: onnxruntime's embeddings are the model's, and what cannot be is said."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from tiny_bundle import SENTENCES, make_bundle, make_clap_bundle, noise
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from atr_moco_plugin.encoders.bert import BertEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting import EXPORTERS, export_onnx
from atr_moco_plugin.exporting.onnx_readme import readme
from atr_moco_plugin.exporting.traced import PlainAttention, attention
from atr_moco_plugin.model import build_model, built_config, model_config
from atr_moco_plugin.retriever import AudioTextRetriever, BundleConfig, packages_of, write_bundle
from atr_moco_plugin.text.tokenizer import train_wordpiece
from atr_moco_plugin.tokens import TextTokens

SAME = 1e-4


def _load(folder: Path) -> AudioTextRetriever:
    return AudioTextRetriever.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> AudioTextRetriever:
    return _load(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="module")
def folder(retriever: AudioTextRetriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    EXPORTERS["onnx"](retriever, folder)
    return folder


@pytest.mark.parametrize("kind", [None, torch.bool, torch.float32])
def test_plain_attention(kind: torch.dtype | None) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 8)
    mask = None
    if kind is not None:
        mask = torch.rand(2, 1, 7, 7) < 0.6
        mask[..., 0] = True
        mask = mask if kind == torch.bool else torch.where(mask, 0.3, -1e4)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with PlainAttention():
        found = scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(found, expected)
    scaled = scaled_dot_product_attention(query, key, value, scale=0.1)
    torch.testing.assert_close(attention(query, key, value, scale=0.1), scaled)


def test_attention_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="causal"):
        attention(*torch.randn(3, 1, 1, 2, 4), is_causal=True)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atr_moco_plugin.exporting.onnx._NEEDED", ("onnx_of_mars", "json"))
    with pytest.raises(InputError, match=r"need onnx_of_mars: pip install .*\[onnx\]"):
        export_onnx(_load(make_bundle(tmp_path / "bundle")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestFiles:
    """Of BEATs and BERT, from waveforms and ids."""

    pytestmark = pytest.mark.slow

    @pytest.mark.parametrize("longest", [2_800, 9_999, 16_000])
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_audio(
        self, folder: Path, retriever: AudioTextRetriever, longest: int, count: int
    ) -> None:
        lengths = np.linspace(longest, 2_800, count).astype(np.int64)
        clips = [noise(n, seed=i) for i, n in enumerate(lengths)]
        batch = np.stack([np.pad(x, (0, longest - len(x))) for x in clips])
        found = _run(folder / "audio.onnx", waveforms=batch, lengths=lengths)
        np.testing.assert_allclose(found, retriever.embed_windows(clips), atol=SAME)

    def test_padding_says_nothing(self, folder: Path) -> None:
        clip = noise(8_000)
        found = [
            _run(
                folder / "audio.onnx",
                waveforms=np.pad(clip, (0, more))[None],
                lengths=np.array([8_000]),
            )
            for more in (0, 1, 40_000)
        ]
        np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-6)

    def test_a_clip_that_is_too_short_is_nan(self, folder: Path) -> None:
        found = _run(
            folder / "audio.onnx",
            waveforms=np.stack([noise(8_000)] * 2),
            lengths=np.array([8_000, 2_799]),
        )
        assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()

    def test_the_tokenizer_pads_and_cuts_nothing_by_itself(self, folder: Path) -> None:
        saved = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
        assert saved["padding"] is None and saved["truncation"] is None

    @pytest.mark.parametrize("count", [1, 3])
    def test_text(self, folder: Path, retriever: AudioTextRetriever, count: int) -> None:
        sentences = ["rain", *SENTENCES][:count]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        tokenizer.enable_truncation(16)
        tokenizer.enable_padding()
        batch = tokenizer.encode_batch(sentences)
        found = _run(
            folder / "text.onnx",
            input_ids=np.array([x.ids for x in batch]),
            attention_mask=np.array([x.attention_mask for x in batch]),
        )
        np.testing.assert_allclose(found, retriever.embed_text(sentences), atol=SAME)

    def test_config(self, folder: Path, retriever: AudioTextRetriever) -> None:
        config = json.loads((folder / "config.json").read_text())
        assert config["audio"]["inputs"] == {
            "waveforms": {"dtype": "float32", "shape": ["batch", "samples"]},
            "lengths": {"dtype": "int64", "shape": ["batch"]},
        }
        assert config["fingerprint"] == retriever.fingerprint
        assert config["audio"]["greatest_difference"] <= SAME
        import onnxruntime

        for part in ("audio", "text"):
            session = onnxruntime.InferenceSession(str(folder / config[part]["file"]))
            inputs = {x.name: x.shape for x in session.get_inputs()}
            assert inputs == {k: v["shape"] for k, v in config[part]["inputs"].items()}
            (output,) = session.get_outputs()
            assert output.name == config[part]["output"]
            assert output.shape == ["batch", retriever.embed_dim]

    def test_the_example_of_the_readme(
        self,
        folder: Path,
        retriever: AudioTextRetriever,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        names = _run_example(folder, 16_000, monkeypatch)
        expected = retriever.embed_audio(str(folder / "sound.wav")).numpy()
        np.testing.assert_allclose(names["sound"], expected, atol=SAME)
        expected = retriever.embed_text(["a dog barks", SENTENCES[1]]).numpy()
        np.testing.assert_allclose(names["sentences"], expected, atol=SAME)
        assert "[[" in capsys.readouterr().out


@pytest.mark.slow
def test_windows_that_hold_one_token(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    retriever = _load(make_bundle(tmp_path / "bundle", seconds=0.4, patch=32))
    export_onnx(retriever, tmp_path / "onnx")
    clips = [noise(6_400), noise(5_360)]
    batch = np.stack([np.pad(x, (0, 6_400 - len(x))) for x in clips])
    found = _run(tmp_path / "onnx/audio.onnx", waveforms=batch, lengths=np.array([6_400, 5_360]))
    np.testing.assert_allclose(found, retriever.embed_windows(clips), atol=SAME)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", [False, True])
def test_a_clap_model_takes_features(
    tmp_path: Path, fusion: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    retriever = _load(make_clap_bundle(tmp_path / "bundle", fusion))
    export_onnx(retriever, tmp_path / "onnx")
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert list(config["audio"]["inputs"]) == ["input_features"]
    names = _run_example(tmp_path / "onnx", 8_000, monkeypatch)
    expected = retriever.embed_audio(str(tmp_path / "onnx" / "sound.wav")).numpy()
    np.testing.assert_allclose(names["sound"], expected, atol=SAME)


@pytest.mark.slow
def test_encoders_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front-end on the host is left out: the file takes what it makes."""
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    wave = {"model_type": "wav2vec2", "conv_dim": [8, 8], "conv_kernel": [10, 8]}
    wave |= {"conv_stride": [5, 32], "num_feat_extract_layers": 2, "hidden_size": 8}
    wave |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    wave |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    words = {"model_type": "xlm-roberta", "hidden_size": 8, "num_hidden_layers": 1}
    words |= {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 40}
    bundle = _bundle_of(tmp_path / "bundle", ("hf_audio", wave), ("hf_text", words))
    retriever = _load(bundle)
    export_onnx(retriever, tmp_path / "onnx")
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert list(config["audio"]["inputs"]) == ["waveforms", "samples"]
    text = (tmp_path / "onnx" / "README.md").read_text().replace("BUNDLE", str(bundle))
    (tmp_path / "onnx" / "README.md").write_text(text)
    names = _run_example(tmp_path / "onnx", 16_000, monkeypatch)
    expected = retriever.embed_audio(str(tmp_path / "onnx" / "sound.wav")).numpy()
    np.testing.assert_allclose(names["sound"], expected, atol=SAME)


class _Reads(BertEncoder):
    """An encoder that decides by a value on the host, which no trace can follow."""

    def forward(self, input_ids: Tensor, mask: Tensor, fusion: Any = None) -> TextTokens:
        tokens = super().forward(input_ids, mask, fusion)
        return tokens if input_ids.sum().item() > 0 else tokens._replace(states=None)


class _Fixes(BertEncoder):
    """An encoder that looks at the length of its first batch."""

    def forward(self, input_ids: Tensor, mask: Tensor, fusion: Any = None) -> TextTokens:
        tokens = super().forward(input_ids, mask, fusion)
        assert tokens.states is not None
        return tokens._replace(states=tokens.states + float(np.asarray(mask.shape).prod()))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [_Reads, _Fixes])
def test_an_encoder_that_cannot_be_traced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: type[nn.Module]
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    retriever = _load(make_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(BertEncoder, "forward", encoder.forward)
    with pytest.raises(InputError) as caught:
        export_onnx(retriever, tmp_path / "onnx")
    assert "text encoder 'bert' of atr-moco-plugin" in str(caught.value)
    assert "cannot be written as ONNX" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [x.name for x in tmp_path.iterdir()] == ["bundle"]


def test_readme_says_where_padding_matters() -> None:
    part = {"inputs": {"waveforms": {}, "lengths": {}}, "greatest_difference": 1e-7}
    config: dict[str, Any] = {"audio": part, "text": part, "embed_dim": 4, "sample_rate": 16_000}
    config |= {"window_seconds": 10.0, "hop_seconds": 5.0, "max_tokens": 32, "pad_id": 0}
    assert "one length" in readme({**config, "pads_clips": False})
    assert "one length" not in readme({**config, "pads_clips": True})


def _bundle_of(folder: Path, audio: tuple[str, Any], text: tuple[str, Any]) -> Path:
    tokenizer = train_wordpiece(SENTENCES)
    words = {**text[1], "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    config = model_config(
        {
            "embed_dim": 12,
            "audio": {"name": audio[0], "config": {"architecture": audio[1]}},
            "text": {"name": text[0], "config": {"architecture": words}},
            "head": {"name": "fusion"},
            "text_pooling": "mean",
        }
    )
    model = build_model(config)
    options = BundleConfig(
        model=asdict(built_config(config, model)),
        sample_rate=model.sample_rate,
        window_seconds=1.0,
        hop_seconds=1.0,
        max_tokens=30,
        packages=packages_of(config),
    )
    write_bundle(folder, options, model, tokenizer)
    return folder


def _run(file: Path, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["embedding"], inputs)[0]
    return found


def _run_example(folder: Path, rate: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the example of a folder's README beside a sound; returns its variables."""
    soundfile.write(folder / "sound.wav", noise(rate * 7 // 10, seed=3), rate, subtype="FLOAT")
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names
