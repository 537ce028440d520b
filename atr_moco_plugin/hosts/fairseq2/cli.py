"""Command line of a recipe: fairseq2's own, with this package's errors in one line."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.compat import training_main
from atr_moco_plugin.hosts.fairseq2.config.arguments import (
    check_name,
    is_evaluation,
    prepare_output,
)
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import ReadableLog
from atr_moco_plugin.hosts.fairseq2.runs.record import Record
from atr_moco_plugin.hosts.fairseq2.training.recipe import RetrievalRecipe


def run_recipe(config_class: type[RetrievalRecipeConfig]) -> None:
    """Run a recipe with the arguments of the command line.

    Args:
        config_class: its defaults are the recipe's.

    Raises:
        SystemExit: with status 2, where the output folder cannot be used or is in use.
    """
    out = prepare_output(_check)
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    record = None if out is None else Record(out)
    try:
        training_main(RetrievalRecipe(config_class, record))
    finally:
        if record is not None:
            record.restore()


def _check(out: Path, arguments: Namespace) -> None:
    check_name(arguments.checkpoint_dir or out)
    if is_evaluation(out):
        raise InputError(
            f"{out} holds an evaluation, whose config.yaml and retrieval.json a training run would "
            "overwrite: give another output folder."
        )
