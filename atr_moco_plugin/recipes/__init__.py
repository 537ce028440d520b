"""Recipes to run: ``python -m atr_moco_plugin.recipes.NAME OUT``. They need the extra ``fairseq2``,
all but ``compare`` and ``finetune``.

A recipe is a configuration with its defaults and a call of ``hosts.fairseq2.cli``; ``rank_study``
starts other recipes, ``compare`` is the command of ``comparison``, ``finetune`` asks ``finetuning``
for a plan and a host for the loop. What a recipe does belongs in
the host. Nothing imports a recipe but another recipe.
"""

import importlib.util
import sys

from atr_moco_plugin.io.processes import is_first_process

__all__: list[str] = []

_WITHOUT_FAIRSEQ2 = ("compare", "finetune")


def _asked() -> str:
    """The recipe that ``python -m`` runs; empty where one is imported."""
    if sys.argv[:1] != ["-m"]:  # what Python puts there until the module itself is found
        return ""
    names = [x.rpartition(".")[2] for x in sys.orig_argv if f"{__name__}." in x]
    return names[0] if names else ""


def _prepare(recipe: str) -> None:
    if recipe in _WITHOUT_FAIRSEQ2:
        return
    if importlib.util.find_spec("fairseq2") is None:
        if not recipe:  # imported, maybe for one that needs none
            return
        raise SystemExit("The recipes need fairseq2: pip install 'atr-moco-plugin[fairseq2]'")
    # Before any recipe imports fairseq2: the host makes it importable without a system libsndfile.
    from atr_moco_plugin.hosts.fairseq2.config.known_keys import RECIPES, unknown_key

    # End with a mistyped key of the command line at once, where it is a recipe's: the imports of
    # one take ten seconds and more.
    problem = unknown_key(recipe, sys.argv[1:]) if recipe in RECIPES else None
    if problem is not None:
        if is_first_process():
            print(f"ERROR: {' '.join(problem.split())}", file=sys.stderr)
        raise SystemExit(2)


_prepare(_asked())
