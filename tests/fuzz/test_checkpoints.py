"""Checkpoints of any content: weights load, or one sentence names the file; nothing in it runs."""

from __future__ import annotations

import io
import json
import shutil
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from atr_moco_plugin.encoders.beats import BeatsEncoder
from atr_moco_plugin.encoders.beats.checkpoint import read_checkpoint
from atr_moco_plugin.encoders.bert import BertConfig, BertEncoder
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.text.tokenizer import load_tokenizer, train_wordpiece

FUZZ = settings.get_profile("fuzz")
ERRORS = (InputError, MissingFileError)
BEATS = Path(__file__).resolve().parents[1] / "fixtures" / "beats_tiny_ssl.safetensors"
TINY_BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=10,
)  # fmt: skip


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A file's bytes to those of a damaged file: cut off, bits flipped, bytes put in or swapped."""
    how = draw(st.sampled_from(["cut", "flip", "flip", "overwrite", "insert", "zero"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    some = draw(st.binary(min_size=1, max_size=8))

    def apply(data: bytes) -> bytes:
        changed = bytearray(data)
        for place in places:
            # Half of them in the first kilobyte, where headers are.
            at = int((place * 2 % 1) * (len(changed) if place < 0.5 else min(len(changed), 1024)))
            if how == "cut":
                return bytes(changed[:at])
            if how == "flip":
                changed[at] ^= 1 << (some[0] % 8)
            elif how == "overwrite":
                changed[at : at + len(some)] = some
            elif how == "insert":
                changed[at:at] = some
            else:
                changed[at : at + 512] = bytes(len(changed[at : at + 512]))
        return bytes(changed)

    return apply


tensor = st.sampled_from(
    [
        torch.zeros(0),
        torch.zeros(2, 2),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros((), dtype=torch.bool),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.float16),
        torch.eye(2).to_sparse(),
        torch.zeros(4, device="meta"),
        torch.zeros(1).expand(10**6, 10**6),
        torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    ]
)
NAMES = [
    "cfg", "model", "patch_embedding.weight", "quantize.x", "embeddings.word_embeddings.weight",
    "encoder.layers.0.self_attn.relative_attention_bias.weight", "model.x", "bert.x", "x",
    "a\nb", "encoder.patch_embedding.weight", "patch_embedding_pad.weight", "fbank_mean",
]  # fmt: skip
plain = st.recursive(
    st.one_of(
        tensor, st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**62, 10**30]),
        st.floats(), st.text(max_size=4), st.sampled_from(["12", "gelu"]),
        st.sampled_from(
            [{1}, frozenset(), deque(), Path("a"), datetime(2024, 5, 1), Namespace(a=1)]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.integers(0, 3)), inner, max_size=4),
    ),
    max_leaves=6,
)  # fmt: skip


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def official() -> dict[str, Any]:
    cfg, model = read_checkpoint(BEATS)
    return {"cfg": dict(cfg), "model": dict(model)}


@st.composite
def beats_content(draw: st.DrawFn) -> object:
    """An official checkpoint with a few entries of its cfg or model exchanged, or anything."""
    if draw(st.booleans()):
        return draw(plain)
    content = official()
    for part in content.values():
        for name in draw(st.lists(st.sampled_from(list(part)), max_size=2)):
            part[name] = draw(plain)
    return content


@FUZZ
@given(beats_content())
@example({"cfg": {}, "model": {"a\nb": torch.zeros(2)}})
@example({"encoder.patch_embedding.weight": torch.zeros(2), "x": 3})
@example({"cfg": {"fbank_mean": torch.zeros(2)}, "model": {"patch_embedding_pad.weight": 1}})
def test_beats_with_other_content(tmp_path: Path, attempt: Any, content: object) -> None:
    path = tmp_path / "beats.pt"
    path.write_bytes(saved(content))
    attempt(lambda: BeatsEncoder.from_checkpoint(path), ERRORS, str(path))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_beats_that_are_damaged(tmp_path: Path, attempt: Any, suffix: str) -> None:
    sound = BEATS.read_bytes() if suffix == ".safetensors" else saved(official())
    path = tmp_path / f"beats{suffix}"

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(sound))
        attempt(lambda: BeatsEncoder.from_checkpoint(path), ERRORS, str(path))

    check()


def bert_state() -> dict[str, torch.Tensor]:
    """A BERT's weights under their public names, which are those this encoder does not have."""
    from atr_moco_plugin.encoders.bert import pretrained

    ours = {f"{ours}.": f"{public}." for public, ours in pretrained.EMBEDDINGS.items()}
    ours |= {f".{ours}.": f".{public}." for public, ours in pretrained.LAYER_PARTS.items()}
    state = {}
    for name, value in BertEncoder(TINY_BERT).state_dict().items():
        for part, public in ours.items():
            if part in f".{name}" or name.startswith(part):
                name = f".{name}".replace(part, public)[1:] if part[0] == "." else (
                    name.replace(part, public)
                )  # fmt: skip
                break
        state[name.replace("layers.", "encoder.layer.")] = value
    return state


SIZES = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
         "intermediate_size", "max_position_embeddings"]  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound BERT, as safetensors and as a pickle."""
    folder = tmp_path_factory.mktemp("bert")
    config = {name: getattr(TINY_BERT, name) for name in SIZES}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(bert_state(), folder / "model.safetensors")
    assert BertEncoder.from_pretrained(str(folder)).config.hidden_size == 8
    return folder


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from([*SIZES, "model_type", "layer_norm_eps", "pad_token_id", "pretrained"]),
        st.one_of(plain.filter(lambda x: not isinstance(x, torch.Tensor)), st.just(10**12)),
        max_size=3,
    )
)
@example({"num_hidden_layers": 10**12})
@example({"hidden_size": 2**40, "intermediate_size": 2**40})
@example({"hidden_size": 10**30})
@example({"hidden_size": 8.0})
@example({"layer_norm_eps": float("nan")})
def test_bert_with_another_config(bert: Path, attempt: Any, changes: dict[str, Any]) -> None:
    own = json.loads((bert / "config.json").read_text())
    folder = bert / "changed"
    folder.mkdir(exist_ok=True)
    shutil.copy(bert / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps({**own, **changes}, default=str))
    attempt(lambda: BertEncoder.from_pretrained(str(folder)), ERRORS, str(folder))


FILES = ["model.safetensors", "pytorch_model.bin", "legacy", "config.json"]


@pytest.mark.parametrize("name", FILES)
def test_bert_that_is_damaged(bert: Path, tmp_path: Path, attempt: Any, name: str) -> None:
    shutil.copy(bert / "config.json", tmp_path)
    file = tmp_path / name.replace("legacy", "pytorch_model.bin")
    if name in ("pytorch_model.bin", "legacy"):
        content = load_file(bert / "model.safetensors")
        torch.save(content, file, _use_new_zipfile_serialization=name != "legacy")
    else:
        shutil.copy(bert / "model.safetensors", tmp_path)
    assert BertEncoder.from_pretrained(str(tmp_path))
    sound = file.read_bytes()

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        file.write_bytes(change(sound))
        attempt(lambda: BertEncoder.from_pretrained(str(tmp_path)), ERRORS, str(tmp_path))

    check()


@FUZZ
@given(plain)
@example({"encoder\nlayer.0.output.dense.bias": torch.zeros(8)})
def test_bert_with_other_content(bert: Path, attempt: Any, content: object) -> None:
    folder = bert / "other"
    folder.mkdir(exist_ok=True)
    shutil.copy(bert / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(saved(content))
    attempt(lambda: BertEncoder.from_pretrained(str(folder)), ERRORS, str(folder))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_damaged(tmp_path: Path, attempt: Any, name: str) -> None:
    train_wordpiece(["a dog barks at a cat", "rain on a roof"], 120).save_pretrained(tmp_path)
    file = tmp_path / name
    sound = file.read_bytes()

    @FUZZ
    @given(damage())
    def check(change: Callable[[bytes], bytes]) -> None:
        file.write_bytes(change(sound))
        attempt(lambda: load_tokenizer(str(tmp_path)), ERRORS, str(tmp_path))

    check()


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@FUZZ
@given(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]), st.data())
def test_a_tokenizer_with_other_content(
    tmp_path_factory: pytest.TempPathFactory, attempt: Any, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed_tokenizer"
    if not folder.exists():
        train_wordpiece(["a dog barks at a cat", "rain on a roof"], 120).save_pretrained(folder)
    file = folder / name
    sound = file.read_bytes()
    values = json.loads(sound)
    for key in data.draw(st.lists(st.sampled_from([*values, "auto_map"]), max_size=2)):
        values[key] = data.draw(json_value)
    if data.draw(st.integers(0, 9)) == 0:
        values = data.draw(json_value)
    file.write_text(json.dumps(values))
    try:
        attempt(lambda: load_tokenizer(str(folder)), ERRORS, str(folder))
    finally:
        file.write_bytes(sound)
