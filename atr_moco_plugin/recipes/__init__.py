"""Recipes to run: ``python -m atr_moco_plugin.recipes.NAME OUT``. They need the extra
``fairseq2``."""

# Before any recipe imports fairseq2: this makes it importable without a system libsndfile.
import atr_moco_plugin.hosts.fairseq2

__all__: list[str] = []
