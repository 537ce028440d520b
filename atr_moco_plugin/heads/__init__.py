"""Heads that score pairs of a clip and a caption."""

from atr_moco_plugin.heads.atm import AtmHead, AtmHeadConfig

__all__ = ["AtmHead", "AtmHeadConfig"]
