"""Runs whose encoders are those of transformers: from checkpoints, evaluated, started from and
exported."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hf_models import AUDIO, TEXT
from other_tokenizers import sentence_pieces
from torch.optim import SGD

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin import available
from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.encoders.hf import HfAudioConfig, HfAudioEncoder, HfTextConfig, HfTextEncoder
from atr_moco_plugin.hosts.fairseq2.integers import keeping_integers
from atr_moco_plugin.hosts.fairseq2.training.layers import (
    checkpoint_layers,
    compile_layers,
    layer_stacks,
)
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.retriever import AudioTextRetriever

if "hf_text" not in available("text_encoders"):
    pytest.skip("the installed metadata is older than `hf_text`: install again",
                allow_module_level=True)  # fmt: skip

MODEL = """
model:
  config_overrides:
    text_pooling: mean
    audio: {name: hf_audio, config: {pretrained: AUDIO}}
    text: {name: hf_text, config: {pretrained: TEXT}}
    head: {name: fusion, config: {layers: 1, heads: 2}}
"""
Run = Callable[..., int]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints: ``text`` (T5 with its tokenizer) and ``audio``."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    clips = open_toy(ToyConfig(num_train=30, num_valid=6, num_test=6)).clips("train")
    sentence_pieces(folder / "text", [text for clip in clips for text in clip.captions])
    text = HfTextEncoder.from_config(HfTextConfig(architecture={**TEXT["t5"], "vocab_size": 90}))
    _save_t5(text, folder / "text")
    audio = HfAudioEncoder.from_config(HfAudioConfig(architecture=AUDIO["wav2vec2"]))
    audio.model.save_pretrained(folder / "audio")
    audio.feature_extractor.save_pretrained(folder / "audio")
    return folder


def _save_t5(encoder: HfTextEncoder, folder: Path) -> None:
    from transformers import AutoConfig, T5EncoderModel

    values = dict(encoder.config.architecture)
    whole = T5EncoderModel(AutoConfig.for_model(values.pop("model_type"), **values))
    whole.encoder.load_state_dict(encoder.model.state_dict())
    whole.save_pretrained(folder)


def arguments(tiny: list[str], file: Path, text: str) -> list[str]:
    file.write_text(text)
    parts = ("model.config_overrides.audio", "model.config_overrides.text")
    rest = [x for x in tiny if not x.startswith(parts)]
    return ["--no-rich", "--config-file", str(file), "--config", *rest]


@pytest.fixture
def run_hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str]) -> Run:
    """Run the toy recipe with the text of a configuration file; returns the exit status."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(out: Path, text: str, *config: str) -> int:
        options = arguments(tiny_options, tmp_path / "run.yaml", text)
        monkeypatch.setattr(sys, "argv", ["recipe", str(out), *options, *config])
        try:
            run_recipe(ToyRecipeConfig)
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call


def of(models: Path, text: str = MODEL) -> str:
    return text.replace("AUDIO", str(models / "audio")).replace("TEXT", str(models / "text"))


@pytest.mark.slow
def test_from_checkpoints_to_a_bundle(
    run_hf: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation
    from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
    from atr_moco_plugin.hosts.fairseq2.export import export_run
    from atr_moco_plugin.retriever.exported import ExportOptions

    lent, out = tmp_path / "lent", tmp_path / "out"
    shutil.copytree(models, lent)
    decay = "optimizer: {config: {layer_decay: 0.8}}\n"
    assert run_hf(out, of(lent) + decay, "init=pretrained") == 0
    # Everything else finds the model in the run's folder alone.
    shutil.rmtree(lent)
    result = json.loads((out / "retrieval.json").read_text())
    assert "reranked" in result["splits"]["test"]
    assert str(lent) not in (out / "model.json").read_text()
    pieces = json.loads((out / "tokenizer" / "tokenizer.json").read_text())
    assert pieces["model"]["type"] == "Unigram"

    command = ["evaluate", str(tmp_path / "ev"), "--no-rich", "--config", f"run={out}"]
    monkeypatch.setattr(sys, "argv", [*command, "rerank_k=[3]", "split=test"])
    run_evaluation()
    found = json.loads((tmp_path / "ev" / "retrieval.json").read_text())
    assert found["splits"]["test"]["dual"] == result["splits"]["test"]["dual"]

    assert (
        run_hf(tmp_path / "again", "report: false\n", f"init={out}", "optimizer.config.lr=1e-30")
        == 0
    )
    first, second = open_checkpoint(out), open_checkpoint(tmp_path / "again")
    for (name, x), y in zip(first.model.named_parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(y, x, rtol=0, atol=1e-25, msg=name)

    export_run(out, ExportOptions()).write(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(str(tmp_path / "bundle"))
    waveforms = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    lengths = torch.tensor([16_000, 9_000, 4_000])
    rows = [row[:n].numpy() for row, n in zip(waveforms, lengths, strict=True)]
    with torch.no_grad():
        expected, _ = first.model.audio(waveforms, lengths)
    torch.testing.assert_close(
        retriever.embed_audio(rows, sample_rate=16_000), expected, atol=1e-5, rtol=0
    )
    assert retriever.embed_text(["a dog barks", "rain"]).shape == expected[:2].shape
    assert retriever.can_match


REFUSED = {
    "a clip that is longer than AST takes": (
        "audio: {name: hf_audio, config: {architecture: AST}}", ("dataset.max_seconds=2.0",),
        "`dataset.max_seconds` is 2, but the audio encoder takes clips of 1.295 s at most: set it "
        "to 1.29 or less",
    ),
    "an evaluated clip that is": (
        "audio: {name: hf_audio, config: {architecture: AST}}", ("evaluation.max_seconds=3.0",),
        "`evaluation.max_seconds` is 3, but the audio encoder",
    ),
    "a first token that has seen nothing": (
        "text: {name: hf_text, config: {architecture: GPT2}}",
        ("model.config_overrides.text_pooling=cls",),
        "`model.text_pooling` is cls, but the first token",
    ),
    "the head for BERT": (
        "text: {name: hf_text, config: {architecture: BERT}}",
        ("model.config_overrides.head.name=atm",),
        "The head atm needs the text encoder bert, but got HfTextEncoder; take the head fusion",
    ),
    "a vocabulary that is too small": (
        "text: {name: hf_text, config: {architecture: BERT}}", (),
        "set `model.config_overrides.text.config.architecture.vocab_size=",
    ),
    "more tokens than positions": (
        "text: {name: hf_text, config: {architecture: LARGE}}", (),
        "`tokenizer.max_tokens` is 48, but the text encoder has positions for 22 tokens",
    ),
    "an option of another encoder": (
        "text: {name: hf_text, config: {vocab_size: 3}}", (),
        "`model.text.config.vocab_size` is not known; `model.text.config` takes pretrained",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_mistake_ends_in_one_line(run_hf: Run, tmp_path: Path, capsys, case: str) -> None:
    part, options, message = REFUSED[case]
    large = {**TEXT["xlm-roberta"], "vocab_size": 600}
    named = {"AST": AUDIO["ast"], "GPT2": TEXT["gpt2"], "BERT": TEXT["bert"], "LARGE": large}
    for name, values in named.items():
        part = part.replace(f"architecture: {name}", f"architecture: {json.dumps(values)}")
    text = f"model:\n  config_overrides:\n    head: {{name: fusion}}\n    {part}\n"
    assert run_hf(tmp_path / "out", text, *options) != 0
    written = capsys.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1 and message in errors[0], errors


def make_model(seed: int = 0) -> RetrievalModel:
    torch.manual_seed(seed)
    text = {**TEXT["xlm-roberta"], "hidden_dropout_prob": 0.2}
    return build_model(
        model_config(
            {
                "embed_dim": 8,
                "audio": {"name": "hf_audio", "config": {"architecture": AUDIO["wav2vec2"]}},
                "text": {"name": "hf_text", "config": {"architecture": text}},
                "head": {"name": "fusion", "config": {"layers": 1, "heads": 2}},
            }
        )
    )


def test_layers_may_be_run_twice_or_compiled(tiny_batch: Callable) -> None:
    def train(change: Callable[[MocoAtcAtm], object]) -> tuple[list[float], MocoAtcAtm]:
        criterion = MocoAtcAtm(
            make_model(), MocoAtcAtmConfig(atm_start=0, queue_size=20, queue_warmup_steps=1)
        )
        change(criterion)
        optimizer = SGD([p for p in criterion.parameters() if p.requires_grad], lr=0.1)
        torch.manual_seed(7)
        found = []
        for step in range(2):
            loss = criterion.train()(**tiny_batch(seed=step))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            criterion.on_optimizer_step()
            found.append(loss.item())
        return found, criterion

    plain, reference = train(lambda criterion: None)
    stacks = layer_stacks(reference.model)
    assert {len(x) for x in (reference.model.audio.encoder.layers, *stacks)} == {1, 2}
    assert any(x is reference.model.audio.encoder.layers for x in stacks)
    assert any(x is reference.model.text.encoder.layers for x in stacks)
    for change in (
        partial(checkpoint_layers, every_nth_layer=1),
        partial(compile_layers, backend="eager"),
    ):
        found, criterion = train(change)
        assert found == pytest.approx(plain, abs=1e-5)
        assert criterion.state_dict().keys() == reference.state_dict().keys()
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(
                criterion.state_dict()[name], value, atol=1e-4, rtol=0, msg=name
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), ("trainer.data_parallelism=fsdp", "trainer.fsdp.granularity=layer")]
)
def test_two_processes(models: Path, tmp_path: Path, tiny_options, options) -> None:
    rest = arguments(tiny_options, tmp_path / "run.yaml", of(models))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(tmp_path / "out"), *rest, *options]
    result = subprocess.run(
        [*command, *recipe], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    splits = json.loads((tmp_path / "out" / "retrieval.json").read_text())["splits"]
    assert "reranked" in splits["test"]


def test_integers_stay_integers_in_fairseq2s_mode() -> None:
    import numpy as np
    from fairseq2.data_type import set_dtype

    def build() -> list[torch.Tensor]:
        return [
            torch.arange(3),
            torch.arange(0, end=3),
            torch.arange(3.0),
            torch.tensor([1, 2]),
            torch.tensor([True]),
            torch.tensor([1.5]),
            torch.tensor(np.array([1, 2], dtype=np.uint8)),
            torch.as_tensor(torch.tensor([1], dtype=torch.int32)),
            torch.full((2,), 3),
            torch.full((2,), fill_value=0.5),
            torch.randperm(4),
            torch.zeros(2),
            torch.ones(2, dtype=torch.int16),
        ]

    expected = [x.dtype for x in build()]
    with set_dtype(torch.float32):
        assert [x.dtype for x in build()] != expected
        assert [x.dtype for x in keeping_integers(build)()] == expected
    with set_dtype(torch.float16):
        assert keeping_integers(build)()[2].dtype == torch.float16
