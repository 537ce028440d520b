"""Momentum-queue training for audio-text retrieval, as plugins for the stack you have.

The docstring of each folder says what belongs in it and what it may not import;
``tests/test_architecture.py`` has the whole list of who may import whom.
"""

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.plugins import available, load

__all__ = ["InputError", "available", "load"]
__version__ = "0.1.0"
