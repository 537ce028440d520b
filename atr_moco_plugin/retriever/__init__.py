"""A trained model to use: ``AudioTextRetriever``, and the bundle that holds one.

Here belongs what turns any audio and any sentence into embeddings and scores. It may import the
model, its parts, ``text`` and ``data``; never a command or a host.
"""

from atr_moco_plugin.data.audio.stream import AudioWindow
from atr_moco_plugin.retriever.bundle import (
    BundleConfig,
    packages_of,
    read_bundle,
    write_bundle,
)
from atr_moco_plugin.retriever.clap import clap_options, clap_pair
from atr_moco_plugin.retriever.classification import Classification
from atr_moco_plugin.retriever.retriever import AudioTextRetriever

__all__ = [
    "AudioTextRetriever",
    "AudioWindow",
    "BundleConfig",
    "Classification",
    "clap_options",
    "clap_pair",
    "packages_of",
    "read_bundle",
    "write_bundle",
]
