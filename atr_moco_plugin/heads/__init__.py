"""Heads that score pairs of a clip and a caption."""

from atr_moco_plugin.heads.atm import AtmHead, AtmHeadConfig
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig

__all__ = ["AtmHead", "AtmHeadConfig", "FusionHead", "FusionHeadConfig"]
