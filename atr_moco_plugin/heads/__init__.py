"""Matching heads: logits of pairs of a clip and a caption from their token states.

A head owns its cross-attentions and classifier and may run the text encoder again. May import
``encoders.bert`` for layers, ``contracts``, ``tensors`` and ``tokens``; never a model or a
criterion. Encoders never import heads.
"""

from atr_moco_plugin.heads.atm import AtmHead, AtmHeadConfig
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig

__all__ = ["AtmHead", "AtmHeadConfig", "FusionHead", "FusionHeadConfig"]
