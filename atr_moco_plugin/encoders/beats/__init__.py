"""BEATs (Chen et al., ICML 2023, https://arxiv.org/abs/2212.09058): waveforms to token states.

The network, its filterbank and its configuration, and the official checkpoints it reads. May import
what ``encoders`` may, and nothing of ``encoders.bert``.
"""

from __future__ import annotations

from atr_moco_plugin.encoders.beats.config import BeatsConfig
from atr_moco_plugin.encoders.beats.fbank import fbank
from atr_moco_plugin.encoders.beats.model import BeatsEncoder

__all__ = ["BeatsConfig", "BeatsEncoder", "fbank"]
