"""An audio encoder of the transformers library."""

from __future__ import annotations

from atr_moco_plugin.encoders.hf.config import HfAudioConfig
from atr_moco_plugin.encoders.hf.encoder import HfEncoder
from atr_moco_plugin.errors import InputError


class HfAudioEncoder(HfEncoder):
    """An audio encoder of the transformers library, entry point ``hf_audio``."""

    config_class = HfAudioConfig

    @classmethod
    def from_config(cls, config: HfAudioConfig) -> HfAudioEncoder:
        """Build the encoder."""
        raise InputError("The audio encoder hf_audio is being built in this hour.")
