"""Momentum-queue training for audio-text retrieval, as plugins for the stack you have.

The docstring of each folder says what belongs in it and what it may not import;
``tests/test_architecture.py`` has the whole list of who may import whom.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.plugins import available, load

if TYPE_CHECKING:
    from atr_moco_plugin.hosts.transformers.finetune.function import finetune
    from atr_moco_plugin.retriever import AudioTextRetriever

__all__ = ["AudioTextRetriever", "InputError", "available", "finetune", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # When it is asked for: it brings torch and transformers with it.
    if name == "AudioTextRetriever":
        from atr_moco_plugin.retriever import AudioTextRetriever

        return AudioTextRetriever
    if name == "finetune":
        if find_spec("accelerate") is None:
            raise InputError(
                "`finetune` needs accelerate: pip install 'atr-moco-plugin[transformers]'."
            )
        from atr_moco_plugin.hosts.transformers.finetune.function import finetune

        return finetune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
