"""A bundle in the form of another library: sentence-transformers, ONNX, ``ClapModel``.

Here belongs what converts a retriever; what reads a training run is in its host. It may import
``retriever`` and what that may import, never a host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atr_moco_plugin.exporting.clap import export_clap
from atr_moco_plugin.exporting.onnx import export_onnx
from atr_moco_plugin.exporting.sentence_transformers import export_sentence_transformers
from atr_moco_plugin.retriever import AudioTextRetriever

EXPORTERS: dict[str, Callable[[AudioTextRetriever, Path], None]] = {
    "sentence-transformers": export_sentence_transformers,
    "onnx": export_onnx,
    "clap": export_clap,
}
"""Name after ``export --to`` to what writes a retriever into a folder that is new or empty."""

__all__ = ["EXPORTERS", "export_clap", "export_onnx", "export_sentence_transformers"]
