"""A fine-tuning on Trainer: the files that it leaves, and that it goes on exactly."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

import soundfile
from finetune_world import prepared
from safetensors.torch import load_file
from transformers import TrainerCallback

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.queries import read_queries
from atr_moco_plugin.evaluation.trained_clips import read_trained_clips
from atr_moco_plugin.finetuning.run_folder import settle_folder
from atr_moco_plugin.hosts.transformers.finetune.inputs import make_inputs
from atr_moco_plugin.hosts.transformers.finetune.loop import make_trainer, run
from atr_moco_plugin.retriever import AudioTextRetriever

MATCHES: dict[str, Any] = {
    "report": True,
    "criterion__name": "moco_atc_atm",
    "criterion__config__atm_start": 0,
    "evaluation__rerank_k": 2,
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its report."""
    folder = tmp_path_factory.mktemp("run") / "out"
    run(prepared(folder, **MATCHES))
    return folder


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_leaves_the_files_of_a_recipe(out: Path) -> None:
    train, valid = (lines(out / "metrics" / f"{name}.jsonl") for name in ("train", "valid"))
    assert [record["Step"] for record in train] == [1, 2, 3, 4, 5, 6]
    assert {"Loss", "ATC Loss", "ATM Loss", "Temperature", "Learning Rate"} <= train[0].keys()
    assert [record["Step"] for record in valid] == [3, 6]
    result = json.loads((out / "retrieval.json").read_text())
    best = max(valid, key=lambda record: (record["R-sum"], record["Step"]))
    assert result["valid_score"] == best["R-sum"]
    assert result["checkpoint"] == f"checkpoint-{best['Step']}"
    assert list(result["splits"]) == ["valid", "test"]
    assert result["splits"]["valid"]["dual"]["r_sum"] == pytest.approx(best["R-sum"])
    assert "reranked" in result["splits"]["test"]
    queries = read_queries(out / "queries.safetensors")
    assert set(queries) == {"valid", "test"}
    page = (out / "report" / "index.html").read_text()
    assert "R-sum on validation" in page and f"step {best['Step']}" in page
    assert lines(out / "rank.jsonl")[-1]["drift"]["every"] == 100
    assert (out / "config.yaml").is_file() and (out / "plan.json").is_file()
    kept = read_trained_clips(out)
    assert kept is not None and {x: len(ids) for x, ids in kept.ids.items()} == {
        "train": 12, "valid": 4
    }  # fmt: skip


def test_its_bundle_gives_the_figures_of_the_run(out: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(out / "bundle", device="cpu")
    run_of = prepared(out, **MATCHES)
    clips = run_of.dataset.clips("test")
    rate = run_of.dataset.sample_rate
    audio = retriever.embed_audio(
        [run_of.dataset.load(clip, rate) for clip in clips], sample_rate=rate
    )
    text = retriever.embed_text([text for clip in clips for text in clip.captions])
    own = torch.tensor([k for k, clip in enumerate(clips) for _ in clip.captions])
    found = (audio @ text.T).T.argmax(dim=1) == own
    figures = json.loads((out / "retrieval.json").read_text())["splits"]["test"]["dual"]
    assert 100 * float(found.float().mean()) == pytest.approx(figures["t2a_r1"])
    assert retriever.can_match
    assert "toy test" in (out / "bundle" / "README.md").read_text()


def test_of_equal_checkpoints_the_last_is_the_best(tmp_path: Path) -> None:
    # At such a rate nothing changes, so that both validations give the same figures.
    rates = {f"optimizer__config__{x}lr": 1e-12 for x in ("", "audio_", "text_")}
    run(prepared(tmp_path, **rates))
    scores = [record["R-sum"] for record in lines(tmp_path / "metrics" / "valid.jsonl")]
    assert len(scores) == 2 and scores[0] == scores[1]
    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert result["checkpoint"] == "checkpoint-6"


@pytest.mark.parametrize(("validate", "save"), [(1, 3), (3, 2), (3, None), (9, 9)])
def test_the_best_checkpoint_has_the_best_score_of_all_that_were_saved(
    tmp_path: Path, validate: int, save: int | None
) -> None:
    changes: dict[str, Any] = {"regime__num_steps": 7, "dataset__config_overrides__num_valid": 8}
    changes |= {"regime__validate_every_n_steps": validate}
    changes |= {"regime__checkpoint_every_n_steps": save, "common__seed": 1}
    changes |= {f"optimizer__config__{x}lr": 0.01 for x in ("", "audio_", "text_")}
    run(prepared(tmp_path, **changes))
    every = save or validate
    saved = [step for step in range(1, 8) if step % every == 0 or step == 7]
    scores = {x["Step"]: x["R-sum"] for x in lines(tmp_path / "metrics" / "valid.jsonl")}
    assert set(saved) <= set(scores)
    best = max(saved, key=lambda step: (scores[step], step))
    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert (result["checkpoint"], result["valid_score"]) == (f"checkpoint-{best}", scores[best])


class Stop(TrainerCallback):
    """Ends the training after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_goes_on_ends_where_the_uninterrupted_one_does(
    tmp_path: Path, workers: int
) -> None:
    changes: dict[str, Any] = {"dataset__num_workers": workers, "regime__num_steps": 7}
    changes |= {"regime__validate_every_n_steps": 4, "regime__checkpoint_every_n_steps": 4}
    changes["trainer__grad_accumulation__num_batches"] = 2
    run(prepared(tmp_path / "whole", **changes))
    broken = prepared(tmp_path / "broken", **changes)
    settle_folder(broken.output_dir, broken.config)
    trainer = make_trainer(broken, make_inputs(broken))
    trainer.add_callback(Stop(5))
    trainer.train()
    run(prepared(tmp_path / "broken", **changes))
    weights = [
        load_file(tmp_path / name / "checkpoint-7" / "model.safetensors")
        for name in ("whole", "broken")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    figures = [
        json.loads((tmp_path / x / "retrieval.json").read_text()) for x in ("whole", "broken")
    ]
    assert figures[0]["splits"] == figures[1]["splits"]
    # The fifth step was recorded before it was undone.
    for name in ("train", "valid"):
        whole, again = (
            lines(tmp_path / x / "metrics" / f"{name}.jsonl") for x in ("whole", "broken")
        )
        assert [x["Step"] for x in whole] == [x["Step"] for x in again]


def test_a_kill_before_the_callbacks_have_saved_costs_one_checkpoint(tmp_path: Path) -> None:
    broken = prepared(tmp_path)
    settle_folder(broken.output_dir, broken.config)
    make_trainer(broken, make_inputs(broken)).train()
    for left_out, said in (("pairs.json", "pairs.json"), ("retrieval", "retrieval/model.json")):
        own = tmp_path / "checkpoint-6" / left_out
        shutil.rmtree(own) if own.is_dir() else own.unlink()
        with pytest.warns(UserWarning, match=f"checkpoint-6 has no readable {said}; it is passed"):
            run(prepared(tmp_path))
        assert (tmp_path / "checkpoint-6" / said).is_file()
        assert [x["Step"] for x in lines(tmp_path / "metrics" / "valid.jsonl")] == [3, 6]


def test_a_folder_with_a_run_of_other_settings_is_refused(out: Path) -> None:
    before = (out / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"optimizer\.config\.lr was .* and is 0\.5"):
        run(prepared(out, **MATCHES, optimizer__config__lr=0.5))
    assert (out / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    "variables",
    [{"WORLD_SIZE": "2"}, *({"SLURM_NTASKS": "2", "SLURM_PROCID": str(i)} for i in range(2))],
)
def test_several_processes_are_refused(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `srun` both trained in one folder."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="`loop` to fairseq2"):
        prepared(tmp_path)
    assert not (tmp_path / "plan.json").exists()


def test_a_score_that_no_validation_has_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`regime.score_metric` is t2a_r11, which.*such as t2a_r1"):
        run(prepared(tmp_path, regime__score_metric="t2a_r11"))
    with pytest.raises(InputError, match="validations do not re-rank; choose r_sum"):
        run(prepared(tmp_path, regime__score_metric="reranked_r_sum"))
    assert not (tmp_path / "tokenizer").exists()  # written before what caches encode


def test_an_unreadable_training_clip_is_skipped_and_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file_name,caption,split"]
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        wave = 0.1 * torch.randn(16_000, generator=generator)
        if number == 3:
            wave[5] = torch.nan
        soundfile.write(data / f"{number}.wav", wave.numpy(), 16_000, "FLOAT")
        split = "train" if number < 16 else "valid"
        rows.append(f"{number}.wav,sound of number {number},{split}")
    (data / "manifest.csv").write_text("\n".join(rows))
    changes = {
        "dataset": {"family": "manifest", "config_overrides": {"root": str(data)}},
        "regime__num_steps": 4,
    }
    with pytest.warns(UserWarning, match="1 training clip.s. could not be read"):
        run(prepared(tmp_path / "out", **changes))
    skipped = lines(tmp_path / "out" / "skipped_clips" / "process_0.jsonl")
    assert [record["clip"] for record in skipped] == ["3.wav"]
    # A run that goes on still names it, one that begins anew does not.
    with pytest.warns(UserWarning, match="1 training clip.s. could not be read"):
        run(prepared(tmp_path / "out", **changes))
    for checkpoint in (tmp_path / "out").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    soundfile.write(data / "3.wav", wave.numpy(), 16_000, "FLOAT")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not be read")
        run(prepared(tmp_path / "out", **changes))
    assert not list((tmp_path / "out" / "skipped_clips").iterdir())
