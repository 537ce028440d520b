"""The command lines of the recipes: fairseq2's own, with this package's errors in one line."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from atr_moco_plugin.hosts.fairseq2.compat import evaluation_main, training_main
from atr_moco_plugin.hosts.fairseq2.config.command_line import option
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import ReadableLog
from atr_moco_plugin.hosts.fairseq2.evaluation.recipe import EvaluateRecipe
from atr_moco_plugin.hosts.fairseq2.runs.output import (
    check_for_evaluation,
    check_for_training,
    description_kept,
    prepare_output,
)
from atr_moco_plugin.hosts.fairseq2.training.recipe import RetrievalRecipe


def run_recipe(config_class: type[RetrievalRecipeConfig], *, start: Path | None = None) -> bool:
    """Train with the arguments of the command line.

    Args:
        config_class: its defaults are the recipe's.
        start: what the file of ``init`` is a copy of; the clips of that run are known to this one.

    Returns:
        Whether the run has come to its end; a signal may have stopped it before.

    Raises:
        SystemExit: with status 2, where the output folder cannot be used or is in use.
    """
    out = prepare_output(check_for_training)
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    recipe = RetrievalRecipe(config_class, start)
    with description_kept(out, lambda: recipe.started):
        training_main(recipe)
    return not recipe.stopped


def run_evaluation() -> None:
    """Evaluate with the arguments of the command line.

    Raises:
        SystemExit: with status 2, where the output folder is in use, a training run's, or holds
            another evaluation.
    """

    def check(out: Path, arguments: Namespace) -> None:
        check_for_evaluation(out, overwrite=bool(option(arguments, "overwrite", False)))

    out = prepare_output(check)
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    recipe = EvaluateRecipe()
    with description_kept(out, lambda: recipe.started):
        evaluation_main(recipe)
