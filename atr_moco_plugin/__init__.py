"""Momentum-queue training for audio-text retrieval, as plugins for the stack you have."""

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.plugins import available, load

__all__ = ["InputError", "available", "load"]
__version__ = "0.1.0"
