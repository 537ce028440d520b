"""The model that criteria train: two towers with pooling and projection, and a matching head.

``towers`` and ``retrieval_model`` are the modules, ``building`` makes them from ``config`` and the
parts that entry points name, ``freezing`` lets encoders stand still, ``adapters`` puts small
weights beside theirs. Imports no encoder and no head, and no data.
"""

from atr_moco_plugin.model.adapters import add_adapters, merge_adapters
from atr_moco_plugin.model.building import build_model, built_config, without_weights
from atr_moco_plugin.model.config import (
    AdapterConfig,
    EncoderConfig,
    LoraConfig,
    PartConfig,
    RetrievalModelConfig,
    model_config,
)
from atr_moco_plugin.model.freezing import freeze_encoder
from atr_moco_plugin.model.retrieval_model import RetrievalModel
from atr_moco_plugin.model.text_tower import TextTower
from atr_moco_plugin.model.towers import AudioTower

__all__ = [
    "AdapterConfig",
    "AudioTower",
    "EncoderConfig",
    "LoraConfig",
    "PartConfig",
    "RetrievalModel",
    "RetrievalModelConfig",
    "TextTower",
    "add_adapters",
    "build_model",
    "built_config",
    "freeze_encoder",
    "merge_adapters",
    "model_config",
    "without_weights",
]
