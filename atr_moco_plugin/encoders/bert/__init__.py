"""BERT text encoder: captions to token states, and the layers that a fusion pass uses.

Our own network, since that of transformers cannot fuse with a mask; it reads public weights. May
import what ``encoders`` may, and nothing of ``encoders.beats``.
"""

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
