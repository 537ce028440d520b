"""A bundle in the form of another library: sentence-transformers, ONNX, ``ClapModel``.

Here belongs what converts a retriever; what reads a training run is in its host. It may import
``retriever`` and what that may import, never a host.
"""

from collections.abc import Callable
from pathlib import Path

from atr_moco_plugin.retriever import AudioTextRetriever

EXPORTERS: dict[str, Callable[[AudioTextRetriever, Path], None]] = {}
"""Name after ``export --to`` to the function that writes a retriever into a folder."""
