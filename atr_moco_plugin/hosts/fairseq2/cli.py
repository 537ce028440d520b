"""Command line of a recipe: fairseq2's own, with this package's errors in one line."""

from __future__ import annotations

import logging

from atr_moco_plugin.hosts.fairseq2.compat import training_main
from atr_moco_plugin.hosts.fairseq2.config import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import ReadableLog
from atr_moco_plugin.hosts.fairseq2.recipe import RetrievalRecipe


def run_recipe(config_class: type[RetrievalRecipeConfig]) -> None:
    """Run a recipe with the arguments of the command line.

    Args:
        config_class: its defaults are the recipe's.
    """
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    training_main(RetrievalRecipe(config_class))
