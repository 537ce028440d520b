"""A recipe whose every part comes from another package, through its command line."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

ACME_MODEL = """
model:
  config_overrides:
    embed_dim: 12
    audio: {name: acme_cnn, config: {width: 24}}
    text: {name: acme_gru, config: {vocab_size: 512, width: 20}}
    head: {name: acme_mlp}
"""
TINY = [
    "dataset.config_overrides.num_train=30",
    "dataset.config_overrides.num_valid=6",
    "dataset.config_overrides.num_test=6",
    "dataset.batch_size=8",
    "dataset.max_seconds=1.0",
    "evaluation.rerank_k=3",
    "report=false",
    "regime.num_steps=4",
    "regime.validate_every_n_steps=2",
    "regime.checkpoint_every_n_steps=2",
    "regime.publish_metrics_every_n_steps=1",
]
Run = Callable[..., int]


@pytest.fixture
def run(acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the toy recipe with the text of a configuration file; returns the exit status."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(out: Path, text: str, *config: str) -> int:
        file = tmp_path / "run.yaml"
        file.write_text(text)
        arguments = ["--no-rich", "--config-file", str(file), "--config", *TINY, *config]
        monkeypatch.setattr(sys, "argv", ["recipe", str(out), *arguments])
        try:
            run_recipe(ToyRecipeConfig)
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call


def test_every_part_may_be_another_packages(run: Run, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    text = f"{ACME_MODEL}criterion: acme_siglip\nhooks: {{acme_mean: {{every: 2}}}}\n"
    assert run(out, text) == 0

    result = json.loads((out / "retrieval.json").read_text())
    assert result["criterion"] == "acme_siglip"
    assert "dual" in result["splits"]["test"] and "reranked" not in result["splits"]["test"]
    records = [json.loads(line) for line in (out / "acme_mean.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4]
    assert all(0 < record["audio"] <= 1 for record in records)
    recorded = [json.loads(x) for x in (out / "metrics/acme_mean.jsonl").read_text().splitlines()]
    assert len(recorded) == 2
    (file,) = (out / "checkpoints" / "step_4" / "model").rglob("*.pt")
    state = torch.load(file, weights_only=True)
    assert "model.audio.encoder.first.weight" in state and int(state["audio_queue.position"][0]) > 0

    # The run is evaluated and started from by the names of its parts.
    from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation

    command = ["evaluate", str(tmp_path / "ev"), "--no-rich", "--config", f"run={out}"]
    monkeypatch.setattr(sys, "argv", [*command, "checkpoint=step_4"])
    run_evaluation()
    found = json.loads((tmp_path / "ev" / "retrieval.json").read_text())
    assert found["criterion"] == "acme_siglip" and "reranked" not in found["splits"]["valid"]
    assert run(tmp_path / "again", "criterion: acme_siglip\n", f"init={out}") == 0


def test_its_encoders_with_the_full_criterion(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "out", ACME_MODEL, "criterion.config.atm_start=0") == 0
    result = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert "reranked" in result["splits"]["test"]


@pytest.mark.parametrize("sample_rate", [32_000, 48_000])
def test_an_encoder_of_another_rate_trains_and_is_evaluated(
    run: Run, tmp_path: Path, monkeypatch, sample_rate: int
) -> None:
    out = tmp_path / "out"
    text = ACME_MODEL.replace("width: 24", f"width: 24, sample_rate: {sample_rate}")
    augment = "dataset.augment={shift_seconds: 0.1, gain_db: 3}"
    with pytest.warns(UserWarning, match=f"lower sampling rate than the model's {sample_rate} Hz"):
        assert run(out, text, augment) == 0
    model = json.loads((out / "model.json").read_text())
    assert model["audio"]["config"]["sample_rate"] == sample_rate

    from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation

    command = ["evaluate", str(tmp_path / "ev"), "--no-rich", "--config", f"run={out}"]
    monkeypatch.setattr(sys, "argv", command)
    run_evaluation()
    trained, evaluated = (
        json.loads((folder / "retrieval.json").read_text()) for folder in (out, tmp_path / "ev")
    )
    assert evaluated["splits"]["valid"]["dual"] == trained["splits"]["valid"]["dual"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ACME_MODEL.replace("acme_mlp", "atm"), "needs the text encoder bert, but got Gru"),
        (ACME_MODEL.replace("width: 24", "widht: 24"), "Did you mean `width`?"),
        (ACME_MODEL.replace("width: 24", "width: 0"), "`width` is 0, expected 1 or more"),
        (
            f"{ACME_MODEL}optimizer: {{config: {{layer_decay: 0.5}}}}\n",
            "`layer_decay` is 0.5, but the audio encoder, Cnn, does not say which its layers are",
        ),
        (
            ACME_MODEL.replace("width: 24", "sample_rate: 10"),
            "`sample_rate` is 10, expected a multiple of 200",
        ),
        (
            ACME_MODEL.replace("width: 24", "sample_rate: 800"),
            "`sample_rate` of the audio encoder acme_atr.audio.Cnn is 800, expected a whole number",
        ),
        (ACME_MODEL.replace("acme_gru", "acme_gur"), "Did you mean acme_gru?"),
        (ACME_MODEL.replace("512", "100"), "`model.config_overrides.text.config.vocab_size="),
        ("criterion: {name: acme_siglip, config: {queue: 3}}\n", "`criterion.config.queue`"),
        ("hooks: {acme_mean: {evry: 2}}\n", "`hooks.acme_mean`"),
    ],
)
def test_a_mistake_ends_in_one_line(
    run: Run, tmp_path: Path, capsys, text: str, message: str
) -> None:
    assert run(tmp_path / "out", text) != 0
    written = capsys.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1 and message in errors[0], errors


def test_a_criterion_that_lacks_something_is_refused(run: Run, tmp_path: Path, capsys) -> None:
    import acme_atr.criterion as module

    del module.Siglip.measures
    assert run(tmp_path / "out", "criterion: acme_siglip\n") != 0
    written = capsys.readouterr().err
    assert "acme_atr.criterion.Siglip) has no `measures`" in written
    assert "Traceback" not in written
