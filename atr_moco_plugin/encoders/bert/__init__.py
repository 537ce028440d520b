"""BERT text encoder: own implementation, public weights."""

from atr_moco_plugin.encoders.bert.config import BertConfig
from atr_moco_plugin.encoders.bert.layers import (
    BertLayer,
    CrossAttention,
    Fusion,
    init_bert_weights,
)
from atr_moco_plugin.encoders.bert.model import BertEncoder

__all__ = [
    "BertConfig",
    "BertEncoder",
    "BertLayer",
    "CrossAttention",
    "Fusion",
    "init_bert_weights",
]
