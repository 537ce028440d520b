"""A fine-tuning on ``Trainer``, from a prepared run to its bundle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion.positives import check_shared_clips
from atr_moco_plugin.data.loading.skipped import all_skipped, forget_skipped
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.final import evaluate_splits
from atr_moco_plugin.evaluation.score_metric import check_score
from atr_moco_plugin.evaluation.split_evaluation import SplitEvaluation
from atr_moco_plugin.evaluation.trained_clips import keep_trained_clips
from atr_moco_plugin.finetuning.checks import check_run, doubtful_splits
from atr_moco_plugin.finetuning.parts import PARTS
from atr_moco_plugin.finetuning.prepare import Prepared, settled
from atr_moco_plugin.finetuning.run_folder import check_run_folder, settle_folder
from atr_moco_plugin.hosts.transformers.export import export_run
from atr_moco_plugin.hosts.transformers.finetune.arguments import (
    make_optimizers,
    training_arguments,
)
from atr_moco_plugin.hosts.transformers.finetune.files import CHECKPOINT_PARTS, RunFiles
from atr_moco_plugin.hosts.transformers.finetune.inputs import (
    RunInputs,
    check_cached_clap,
    make_inputs,
)
from atr_moco_plugin.hosts.transformers.finetune.trainer import (
    RetrievalTrainer,
    ValidateWhatIsSaved,
)
from atr_moco_plugin.hosts.transformers.model.clap_trainer_model import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.callback import MocoCallback
from atr_moco_plugin.hosts.transformers.trainer.resume import last_checkpoint
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.io.step_records import drop_after
from atr_moco_plugin.model.config import AdapterConfig
from atr_moco_plugin.report.ending import show_results
from atr_moco_plugin.retriever.exported import Exported, ExportOptions
from atr_moco_plugin.teaching import use_teachers

BUNDLE = "bundle"
"""Folder of the bundle in the output folder."""


def check(prepared: Prepared) -> None:
    """Refuse what :func:`run` would refuse before its first step, without audio or a file.

    Raises:
        InputError: for a configuration or data that cannot be used.
    """
    check_run_folder(prepared.output_dir, prepared.config)
    check_run(prepared, _trainer_model(prepared).criterion, tell=say)


def run(prepared: Prepared) -> Path:
    """Train, evaluate the best checkpoint, and write the table, the report and the bundle.

    A run that was stopped goes on from its last whole checkpoint.

    Returns:
        The bundle's folder.

    Raises:
        InputError: for a configuration, data or a checkpoint that cannot be used.
    """
    config, out = prepared.config, prepared.output_dir
    settle_folder(out, config)
    for note in doubtful_splits(config):
        say(note)
    check_score(
        config.regime.score_metric,
        one_clip_each=prepared.dataset.relevance_mode == "clip",
        reranks=False,
    )
    inputs = make_inputs(prepared)
    trainer = make_trainer(prepared, inputs)
    checkpoint = last_checkpoint(out, parts=CHECKPOINT_PARTS)
    step = 0
    if checkpoint is None:
        forget_skipped(out)  # of a run that was here before
    else:
        say(f"Going on from {checkpoint}.")
        inputs.batches.load(Path(checkpoint))
        step = int(checkpoint.rpartition("-")[2])
    if step < settled(config.regime.num_steps):
        section = config.dataset
        keep_trained_clips(
            out,
            prepared.dataset,
            section.train_split,
            section.valid_split,
            goes_on=checkpoint is not None,
            start=prepared.start.place,
            test_split=config.evaluation.test_split,
        )
    for file in (*sorted((out / "metrics").glob("*.jsonl")), out / "rank.jsonl"):
        drop_after(file, step)  # it is recorded again
    with warnings.catch_warnings():
        # Checkpoints are put in order by their numbers then, which is right.
        warnings.filterwarnings("ignore", "mtime may not be reliable")
        trainer.train(resume_from_checkpoint=checkpoint)
    if (skipped := all_skipped(out)) is not None:
        warnings.warn(skipped, stacklevel=1)
    return finish(prepared, inputs)


def make_trainer(prepared: Prepared, inputs: RunInputs) -> RetrievalTrainer:
    """``Trainer`` with everything a run needs."""
    config, out = prepared.config, prepared.output_dir
    model = _trainer_model(prepared)
    captions, mix = config.dataset.captions_per_clip, config.dataset.mix
    check_shared_clips(model.criterion, captions, mixes=mix is not None)
    use_teachers(
        model.criterion,
        prepared.dataset,
        config.dataset.train_split,
        folder=out,
        batch_size=config.evaluation.batch_size,
        num_workers=config.dataset.num_workers,
        say=say,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    valid = inputs.splits[config.dataset.valid_split]
    arguments = training_arguments(config, out)
    trainer = RetrievalTrainer(
        batches=inputs.batches,
        validation=SplitEvaluation(model.criterion, valid, 0, device),
        described=inputs.described,
        processors=inputs.processors,
        model=model,
        args=arguments,
        train_dataset=inputs.train_set,
        optimizers=make_optimizers(config, model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ValidateWhatIsSaved())
    trainer.add_callback(
        MocoCallback(
            trainer,
            rank_every=config.regime.validate_every_n_steps or 100,
            max_skipped_steps=config.safety.max_skipped_steps,
            max_bad_clips=config.dataset.max_bad_clips,
            allow_unknown=config.tokenizer.allow_unknown,
        )
    )
    trainer.add_callback(RunFiles(trainer, out, inputs.batches, config.regime.score_metric))
    return trainer


def finish(prepared: Prepared, inputs: RunInputs) -> Path:
    """Evaluate the best checkpoint on every split, show the figures, and write the bundle.

    Returns:
        The bundle's folder.

    Raises:
        InputError: where a split could not be evaluated.
    """
    config, out = prepared.config, prepared.output_dir
    exported = export_run(out, ExportOptions())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = _Trained(exported, device)
    matches = exported.config.score is not None
    rerank_k = settled(config.evaluation.rerank_k)
    evaluations = {
        name: SplitEvaluation(trained, split, rerank_k if matches else 0, device)
        for name, split in inputs.splits.items()
    }
    origin = exported.config.origin
    dual = exported.figures.get("evaluation", {}).get("dual", {})
    facts = {
        "criterion": config.criterion.name,
        "dataset": prepared.dataset.name,
        "train_pairs": inputs.num_pairs,
        "seed": config.common.seed,
        "checkpoint": origin["checkpoint"],
        "valid_score": dual.get(config.regime.score_metric),
    }
    failed = evaluate_splits(evaluations, facts, out)
    show_results(
        evaluations,
        prepared.dataset,
        out,
        examples_of=config.dataset.valid_split,
        with_report=config.report,
        warn=warnings.warn,
    )
    exported.model.cpu()
    figures = {name: x.result for name, x in evaluations.items() if x.result}
    replace(exported, figures=figures).write(out / BUNDLE)
    if failed is not None:
        raise failed
    return out / BUNDLE


class _Trained(nn.Module):
    """The best checkpoint, as an evaluation asks a criterion for it."""

    def __init__(self, exported: Exported, device: torch.device) -> None:
        super().__init__()
        self.model = exported.model.to(device)
        self.temperature = torch.tensor(exported.config.temperature)
        if (factor := exported.factor) is not None:
            self.distance_factor = lambda parameters: factor


def _trainer_model(prepared: Prepared) -> TrainerModel:
    section, started = prepared.config.criterion, prepared.started
    name = settled(section.name)
    captions = prepared.config.dataset.captions_per_clip
    if captions > 1 and started.clap is not None:
        raise InputError(
            f"`dataset.captions_per_clip` is {captions}, but the towers of a ClapModel take one "
            "clip for each caption: set it to 1."
        )
    check_cached_clap(prepared)
    options: dict[str, Any] = dict(section.config)
    chunk_size = prepared.config.trainer.grad_cache.chunk_size
    if started.clap is None:
        return TrainerModel(started.model, name, chunk_size=chunk_size, **options)
    head: Any = started.model.head
    parts = {part: prepared.start.part(part) for part in PARTS}
    model = ClapTrainerModel(
        started.clap,
        name,
        head=None if head is None else head.config,
        chunk_size=chunk_size,
        freeze={part: x["freeze"] for part, x in parts.items() if "freeze" in x},
        adapter={part: _adapter(part, x) for part, x in parts.items() if x.get("adapter")},
        **options,
    )
    trained: Any = model.criterion.model
    if head is not None and trained.head is not None:
        trained.head.load_state_dict(head.state_dict())
    return model


def _adapter(part: str, options: Mapping[str, Any]) -> AdapterConfig:
    where = f"model.config_overrides.{part}.adapter"
    return build_config(AdapterConfig, options["adapter"], where)
