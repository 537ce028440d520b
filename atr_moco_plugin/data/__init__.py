"""Data sets of audio clips with captions, and the loader that makes training batches of them.

In floors; each may import the floors before it, never a later one:

1. ``audio``: one file to a waveform.
2. ``tables``: captions files to rows.
3. ``clips``, ``retrieval_set``, ``summary``, ``dataset``: an open data set, its clips, its
   retrieval task and its one line.
4. ``opening``: rows and files to clips, for all data sets.
5. ``sets``: one file a data set, and ``registry``, which gives them their names.
6. ``loading``: an open data set to batches.

Nothing here knows models, criteria or hosts. The names below are for scripts; a new data set need
not be among them.
"""

from __future__ import annotations

from atr_moco_plugin.data.audio.read import fit_length, read_audio
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Example, PairBatch, collate, pad_waveforms
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.scenes import ScenesConfig, open_scenes
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy

__all__ = [
    "AudioReader",
    "AudioTextDataset",
    "Clip",
    "Esc50Config",
    "Example",
    "ManifestConfig",
    "PairBatch",
    "PairLoader",
    "RetrievalSet",
    "ScenesConfig",
    "ToyConfig",
    "collate",
    "fit_length",
    "iterate_audio",
    "open_esc50",
    "open_manifest",
    "open_scenes",
    "open_toy",
    "pad_waveforms",
    "read_audio",
]
