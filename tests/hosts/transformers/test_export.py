"""A checkpoint of ``Trainer`` becomes a bundle that embeds as its model did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_TEXT, make_tiny_model
from trainer_world import RATE, TiedEncoder, make_trainer, pair_of
from transformers import Trainer, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    MocoCallback,
    TrainerModel,
)
from atr_moco_plugin.hosts.transformers.export import export_run
from atr_moco_plugin.hosts.transformers.trainer.description import describe, write_description
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions
from atr_moco_plugin.text.tokenizer import train_wordpiece


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A training of four steps with checkpoints and evaluations of steps 2 and 4."""
    trainer = make_trainer(
        tmp_path_factory.mktemp("trainer") / "run",
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="r_sum",
        seed=7,
    )
    trainer.train()
    return trainer


@pytest.fixture
def run(trainer: Trainer, tmp_path: Path) -> Path:
    """Its output folder, to be changed."""
    shutil.copytree(str(trainer.args.output_dir), tmp_path / "run")
    return tmp_path / "run"


def test_a_bundle_embeds_as_the_trained_model(trainer: Trainer, run: Path, tmp_path: Path) -> None:
    exported = export_run(run, ExportOptions(checkpoint="last"))
    exported.write(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    # Clips of one caption each, as the collator gives them to an evaluation.
    data: Any = trainer.eval_dataset
    examples = [data[i] for i in range(0, len(data), 5)]
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**trainer.data_collator(examples))
    audio = retriever.embed_audio([x["audio"] for x in examples], sample_rate=RATE)
    text = retriever.embed_text([x["caption"] for x in examples])
    assert len(audio) == 4
    assert (audio - expected["audio_embeds"]).abs().max() < 1e-5
    assert (text - expected["text_embeds"]).abs().max() < 1e-5
    assert retriever.temperature == pytest.approx(float(trainer.model.criterion.temperature))
    assert retriever.can_match and retriever.window_seconds == 4.0
    log_odds = retriever.match(
        [x["caption"] for x in examples], [x["audio"] for x in examples], sample_rate=RATE
    )
    model = trainer.model.criterion.model
    batch = trainer.data_collator(examples)
    with torch.no_grad():
        _, clips = model.audio(batch["input_features"], batch["is_longer"])
        _, captions = model.text(batch["input_ids"], batch["attention_mask"])
        logits = model.match(captions, clips)
    assert (log_odds - (logits[:, 1] - logits[:, 0])).abs().max() < 1e-4


def test_a_bundle_says_where_it_comes_from(trainer: Trainer, run: Path, tmp_path: Path) -> None:
    exported = export_run(run, ExportOptions(checkpoint="checkpoint-2"))
    origin = exported.config.origin
    assert origin["criterion"] == "moco_atc_atm" and origin["seed"] == 7
    assert (origin["run"], origin["checkpoint"]) == ("run", "checkpoint-2")
    assert origin["data"] == "toy train"
    exported.write(tmp_path / "bundle")
    history = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    figure = next(x["eval_r_sum"] for x in history if "eval_r_sum" in x and x["step"] == 2)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert f"{figure:.1f}" in card and "evaluation\n\n|" in card
    names = exported.model.state_dict()
    assert not any("queue" in name or "momentum" in name for name in names)


def test_which_checkpoint(run: Path) -> None:
    def taken(which: str | None, path: Path = run) -> str:
        exported = export_run(path, ExportOptions(checkpoint=which))
        return str(exported.config.origin["checkpoint"])

    state = run / "checkpoint-4" / "trainer_state.json"
    best = json.loads(state.read_text())["best_model_checkpoint"]
    assert taken(None) == taken("best") == Path(best).name
    assert taken("last") == "checkpoint-4"
    assert taken(None, run / "checkpoint-2") == "checkpoint-2"
    with pytest.raises(InputError, match="checkpoint-3.*checkpoint-2, checkpoint-4"):
        taken("checkpoint-3")
    # Killed while it was written: the newest whole one is taken.
    (run / "checkpoint-4" / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="passed over"):
        assert taken("last") == "checkpoint-2"
    with pytest.raises(InputError, match="has no weights"):
        taken("checkpoint-4")
    shutil.rmtree(run / "checkpoint-2" / "retrieval")
    with pytest.raises(InputError, match="model.json is missing, which MocoCallback writes"):
        taken("checkpoint-2")


def test_old_checkpoints_go_with_their_description(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path / "run",
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        save_only_model=True,
    )
    trainer.train()
    assert [x.name for x in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]
    exported = export_run(tmp_path / "run", ExportOptions())
    assert exported.config.origin["checkpoint"] == "checkpoint-3" and exported.figures == {}


def test_weights_of_another_model_are_refused(run: Path) -> None:
    file = run / "checkpoint-4" / "retrieval" / "model.json"
    known = json.loads(file.read_text())
    known["model"]["head"]["layers"] = 2
    file.write_text(json.dumps(known))
    with pytest.raises(InputError, match="other weights than retrieval/model.json"):
        export_run(run / "checkpoint-4", ExportOptions())


def plain_trainer(model: TrainerModel, out: Path, **more: Any) -> Trainer:
    """A Trainer with a collator of its user's."""
    arguments = TrainingArguments(str(out), **TRAINING_ARGUMENTS, use_cpu=True, report_to=[])
    trainer = Trainer(model, arguments, lambda examples: {}, **more)
    trainer.add_callback(MocoCallback(trainer))
    return trainer


@pytest.mark.parametrize("adapter", [None, {"lora": {"rank": 2}}])
def test_named_parts_become_a_bundle_of_them(tmp_path: Path, adapter: Any) -> None:
    if adapter is not None:
        pytest.importorskip("peft", reason="needs the extra peft")
    tokenizer = train_wordpiece(["a dog barks", "rain falls"] * 2, vocab_size=45)
    text = {"name": "bert", "config": TINY_TEXT, "adapter": adapter}
    model = TrainerModel(make_tiny_model(text=text), "moco_atc", queue_size=8)
    with torch.no_grad():
        for name, p in model.criterion.model.named_parameters():
            p.add_(0.5) if ".lora_B" in name else None
    trainer = plain_trainer(model, tmp_path / "run", processing_class=tokenizer)
    folder = tmp_path / "run" / "checkpoint-1"
    trainer.save_model(str(folder))
    for name, text in {"trainer_state.json": "{}", "optimizer.pt": ""}.items():
        (folder / name).write_text(text)
    write_description(trainer, folder)
    with pytest.raises(InputError, match="give --window SECONDS"):
        export_run(folder, ExportOptions())
    exported = export_run(folder, ExportOptions(window_seconds=2))
    exported.write(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    assert not retriever.can_match and retriever.window_seconds == 2.0
    tokens = tokenizer(["a dog barks"], return_tensors="pt")
    model.eval()
    with torch.no_grad():
        expected, _ = model.criterion.model.text(
            tokens["input_ids"], tokens["attention_mask"].bool()
        )
    assert (retriever.embed_text("a dog barks") - expected).abs().max() < 1e-5


def test_towers_put_together_by_hand_are_not_described(tmp_path: Path) -> None:
    trainer = plain_trainer(pair_of(TiedEncoder()), tmp_path)
    assert describe(trainer) is None


def test_a_head_whose_loss_has_not_begun_is_no_score(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, save_strategy="steps", save_steps=2, model_options={"atm_start": 2}
    )
    trainer.train()
    for step, trained in ((2, False), (4, True)):
        exported = export_run(tmp_path / f"checkpoint-{step}", ExportOptions())
        assert (exported.config.score is not None) == trained
