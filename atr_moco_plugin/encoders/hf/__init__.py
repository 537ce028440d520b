"""Encoders of the transformers library as towers: any text encoder, and audio encoders by waveform
or spectrogram.

``checkpoint`` reads a model and its configuration, ``inputs`` is what a feature extractor does to a
batch of clips, ``text`` and ``audio`` are the encoders. May import what ``encoders`` may, and
nothing of ``encoders.beats`` or ``encoders.bert``.
"""

from atr_moco_plugin.encoders.hf.audio import HfAudioEncoder
from atr_moco_plugin.encoders.hf.config import HfAudioConfig, HfTextConfig
from atr_moco_plugin.encoders.hf.text import HfTextEncoder

__all__ = ["HfAudioConfig", "HfAudioEncoder", "HfTextConfig", "HfTextEncoder"]
