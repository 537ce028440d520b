"""Configurations of any content: the parts' own, and a recipe's through its command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import MocoAtcAtmConfig
from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.sets.registry import DATASETS
from atr_moco_plugin.encoders.beats import BeatsConfig
from atr_moco_plugin.encoders.bert import BertConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import RetrievalModelConfig, model_config
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig

FUZZ = settings.get_profile("fuzz")

CLASSES = [
    MocoAtcAtmConfig, BeatsConfig, BertConfig, RetrievalModelConfig, AugmentConfig,
    SpecAugmentConfig, *(config_class for config_class, _ in DATASETS.values()),
]  # fmt: skip

odd_key = st.one_of(st.text(max_size=6), st.sampled_from(["name", "config", "root", "__class__"]))
value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([2**31, 2**63, -(2**70), 0.5, 1e308, -1.0]),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(["auto", "mean", "cls", "beats", "bert", "atm", "1", "nan", "batch", "."]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(odd_key, inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def options(draw: st.DrawFn) -> tuple[type, dict[str, Any]]:
    """A configuration's class and a few values for its keys, or for others."""
    config_class = draw(st.sampled_from(CLASSES))
    known = [x.name for x in dataclasses.fields(config_class)]
    key = st.one_of(*[st.sampled_from(known)] * 8, odd_key)
    return config_class, draw(st.dictionaries(key, value, max_size=4))


@FUZZ
@given(options())
def test_options_of_a_part(attempt: Any, case: tuple[type, dict[str, Any]]) -> None:
    config_class, values = case
    attempt(lambda: build_config(config_class, values, "part"), (InputError,), "`part")


MODEL_KEYS = [
    "audio",
    "text",
    "head",
    "embed_dim",
    "audio_pooling",
    "spec_augment",
    "patch_dropout",
]


@FUZZ
@given(st.dictionaries(st.one_of(st.sampled_from(MODEL_KEYS), odd_key), value, max_size=4))
def test_a_model(attempt: Any, values: dict[str, Any]) -> None:
    attempt(lambda: model_config(values), (InputError,), "`", "Config.")


SECTIONS = {
    "": ["init", "model", "dataset", "tokenizer", "criterion", "evaluation", "hooks", "report",
         "gang", "trainer", "optimizer", "lr_scheduler", "regime", "common"],
    "model": ["family", "arch", "config_overrides", "name", "path"],
    "dataset": ["family", "config_overrides", "batch_size", "max_seconds", "captions", "augment",
                "num_workers", "decoder", "cache_dir", "max_bad_clips", "train_split"],
    "tokenizer": ["name", "vocab_size", "max_tokens"],
    "criterion": ["name", "config"],
    "evaluation": ["rerank_k", "batch_size", "max_seconds", "test_split"],
    "trainer": ["data_parallelism", "mixed_precision", "grad_accumulation", "max_grad_norm",
                "fsdp", "activation_checkpointing"],
    "gang": ["tensor_parallel_size", "timeout"],
    "optimizer": ["name", "config"],
    "lr_scheduler": ["name", "config"],
    "regime": ["num_steps", "validate_every_n_steps", "score_metric", "keep_last_n_checkpoints"],
    "common": ["seed", "torch", "metric_recorders", "profilers", "assets"],
}  # fmt: skip


@st.composite
def recipe_file(draw: st.DrawFn) -> bytes:
    """A configuration file: values for keys of the recipe, and sometimes anything else."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
    tree: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(list(SECTIONS)))
        key = draw(st.one_of(*[st.sampled_from(SECTIONS[section])] * 6, odd_key))
        place = tree
        if section:
            if not isinstance(tree.get(section), dict):
                tree[section] = {}
            place = tree[section]
        place[key] = draw(value)
    text = json.dumps(tree, ensure_ascii=draw(st.booleans()))  # YAML, but for a few characters
    return text.replace("NaN", ".nan").replace("Infinity", ".inf").encode("utf-8", "replace")


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """The exit status and output of ``recipe --config-file FILE --dump-config``."""
    pytest.importorskip("fairseq2")
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    file = tmp_path / "recipe.yaml"
    monkeypatch.chdir(tmp_path)
    arguments = ["recipe", "--no-rich", "--dump-config", "--config-file", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)

    def call(content: bytes) -> tuple[int, str]:
        file.write_bytes(content)
        capfd.readouterr()
        status = 0
        try:
            run_recipe(ToyRecipeConfig)
        except SystemExit as ex:
            status = int(ex.code or 0)
        return status, capfd.readouterr().err

    return call


@FUZZ
@given(recipe_file())
@example(b"\x80")
@example(b"\xc2")
@example(b'{"regime": {"num_steps": .inf}}')
@example(b'{"criterion": {"name": []}}')
@example(b'{"dataset": {"max_seconds": .nan}}')
@example(b'{"\\ud800\\udc00": null}')
@example(b'{"regime": {"nm_steps": 3}}')
@example(b'{"gang": {"tensor_parallel_size": 2}}')
@example(b'{"trainer": {"fsdp": {"version": "v1", "granularity": "model"}}}')
def test_a_recipe(dump: Any, content: bytes) -> None:
    from atr_moco_plugin.hosts.fairseq2.config.known_keys import unknown_key

    status, said = dump(content)
    assert "Traceback" not in said and "unexpected error" not in said
    assert status == 0 or "ERROR" in said
    # What is refused before anything is imported, fairseq2 refuses too.
    assert status != 0 or unknown_key("toy", sys.argv[1:]) is None
