"""A fine-tuning on fairseq2's loop: the recipe with the values of a plan, and the bundle of it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fairseq2.recipe.config import LRSchedulerSection, OptimizerSection, RegimeSection

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.checks import check_intervals, check_run
from atr_moco_plugin.finetuning.parts import merged
from atr_moco_plugin.finetuning.prepare import Prepared, settled
from atr_moco_plugin.finetuning.run_folder import (
    START_CONFIG,
    START_FOLDER,
    check_run_folder,
    plain,
    settle_folder,
)
from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.known_keys import unknown_in
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    EvaluationSection,
    RetrievalDatasetSection,
    adamw,
    best_by_r_sum,
    cosine,
    default,
)
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.hosts.fairseq2.runs.output import check_for_training
from atr_moco_plugin.hosts.fairseq2.training.early import validation_candidates
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.processes import is_first_process
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.io.yaml12 import dump_yaml
from atr_moco_plugin.retriever.exported import ExportOptions


@dataclass(kw_only=True)
class FinetuneRecipeConfig(RetrievalRecipeConfig):
    """Its values come from a plan."""

    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection, family="folder", config_overrides={}
    )
    optimizer: OptimizerSection = default(adamw)
    lr_scheduler: LRSchedulerSection = default(cosine, 1)
    regime: RegimeSection = default(best_by_r_sum, 100, 10, 5)


def check(prepared: Prepared) -> None:
    """Refuse what :func:`run` would refuse before its first step, without audio or a file.

    Raises:
        InputError: for a configuration or data that cannot be used.
    """
    _check_keys(prepared)
    _check_folder(prepared)
    criterion, evaluation = prepared.config.criterion, prepared.config.evaluation
    other = prepared.other.get("evaluation", {})
    recipe = FinetuneRecipeConfig(
        criterion=CriterionSection(name=settled(criterion.name), config=criterion.config),
        evaluation=EvaluationSection(
            rerank_k=settled(evaluation.rerank_k),
            rerank_while_training=other.get("rerank_while_training", False),
        ),
    )
    check_run(
        prepared,
        recipe.criterion_section.build(prepared.started.model),
        tell=say,
        world_size=prepared.processes,
        reranks=validation_candidates(recipe) > 0,
    )


def run(prepared: Prepared) -> Path | None:
    """Train with fairseq2, which writes the table and the report, and write the bundle.

    Returns:
        The bundle's folder; None where a signal has stopped the run, which goes on another time.

    Raises:
        SystemExit: where fairseq2 ends the run; it has said why.
        InputError: where no bundle can be made.
    """
    out = prepared.output_dir
    folder = out / START_FOLDER
    _check_keys(prepared)
    _check_folder(prepared)
    settle_folder(out, prepared.config, START_CONFIG)
    values = recipe_values(prepared, folder)
    file = folder / "recipe.yaml"
    write_atomically(file, dump_yaml(values))
    arguments = sys.argv
    sys.argv = [arguments[0], str(out), "--config-file", str(file)]
    ended = True
    try:
        ended = run_recipe(FinetuneRecipeConfig, start=prepared.start.place)
    except SystemExit as ex:
        if ex.code not in (None, 0):
            raise
    finally:
        sys.argv = arguments
    if not ended:
        return None
    if is_first_process():
        export_run(out, ExportOptions()).write(out / "bundle")
    return out / "bundle"


def _check_keys(prepared: Prepared) -> None:
    """Refuse keys and intervals that fairseq2 does not take."""
    if (problem := unknown_in((__name__, "FinetuneRecipeConfig"), prepared.other)) is not None:
        raise InputError(problem)
    if prepared.other.get("common", {}).get("no_sweep_dir") is False:
        raise InputError(
            "`common.no_sweep_dir` is false, but a fine-tuning has its figures and its bundle in "
            "the output folder itself: leave it out."
        )
    check_intervals(prepared.config.regime, prepared.config.loop)


def _check_folder(prepared: Prepared) -> None:
    """Refuse a folder with a run of other settings or an evaluation, or that fairseq2 finds no
    checkpoints in; nothing is written."""
    out = prepared.output_dir
    check_run_folder(out, prepared.config, START_CONFIG)
    check_for_training(out, Namespace(checkpoint_dir=None))


def recipe_values(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """The configuration of :class:`FinetuneRecipeConfig`.

    Args:
        prepared: the run.
        folder: where the weights and the tokenizer of a trained start are written.
    """
    start, started = prepared.start, prepared.started
    values = plain(prepared.config)
    del values["loop"]
    # Parts by their names and sizes; the places of pretrained encoders are among their options.
    values["model"] = {"family": FAMILY, "arch": "base", "config_overrides": start.model}
    values["init"] = "random"
    if start.kind in ("bundle", "run"):
        weights = folder / "model.pt"
        with _replacing(folder) as temporary:
            torch.save(started.model.state_dict(), temporary / weights.name)
        values["init"] = str(weights.resolve())
    if values["tokenizer"]["name"] is None and started.tokenizer is not None:
        tokenizer = folder / "tokenizer"
        with _replacing(tokenizer) as temporary:
            started.tokenizer.save_pretrained(temporary)
        values["tokenizer"]["name"] = str(tokenizer.resolve())
    values["regime"]["keep_best_n_checkpoints"] = 1
    return merged(values, prepared.other)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder, whose files then take the place of those in ``folder``, each at once: all
    processes of a run write the same ones, and none reads half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as temporary:
        yield Path(temporary)
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)
