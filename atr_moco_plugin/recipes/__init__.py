"""Recipes to run: ``python -m atr_moco_plugin.recipes.NAME OUT``. They need the extra
``fairseq2``."""

import importlib.util

if importlib.util.find_spec("fairseq2") is None:
    raise SystemExit("The recipes need fairseq2: pip install atr-moco-plugin[fairseq2]")

# Before any recipe imports fairseq2: this makes it importable without a system libsndfile.
import atr_moco_plugin.hosts.fairseq2

__all__: list[str] = []
