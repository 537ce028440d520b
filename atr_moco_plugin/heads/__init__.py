"""Matching heads: logits of pairs of a clip and a caption from their token states.

``atm`` runs the layers of the text encoder again, ``fusion`` has layers of its own, ``pairs``
checks what both are given. Here belong cross-attention and the classifier of a pair. A head may
import ``encoders.bert`` for its layers; it may not import a model, a criterion or data, and
encoders never import heads.
"""

from atr_moco_plugin.heads.atm import AtmHead, AtmHeadConfig
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig

__all__ = ["AtmHead", "AtmHeadConfig", "FusionHead", "FusionHeadConfig"]
