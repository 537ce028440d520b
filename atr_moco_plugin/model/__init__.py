"""The model that criteria train: two towers with pooling and projection, and a matching head.

``towers`` and ``retrieval_model`` are the modules, ``building`` makes them from ``config`` and the
parts that entry points name. Imports no encoder and no head, and no data.
"""

from atr_moco_plugin.model.building import build_model, built_config, without_weights
from atr_moco_plugin.model.config import PartConfig, RetrievalModelConfig, model_config
from atr_moco_plugin.model.retrieval_model import RetrievalModel
from atr_moco_plugin.model.towers import AudioTower, TextTower

__all__ = [
    "AudioTower",
    "PartConfig",
    "RetrievalModel",
    "RetrievalModelConfig",
    "TextTower",
    "build_model",
    "built_config",
    "model_config",
    "without_weights",
]
