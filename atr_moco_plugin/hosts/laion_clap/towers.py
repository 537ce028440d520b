"""LAION-CLAP's branches as the towers of a criterion.

The modules are CLAP's own and stay registered in it: only the head has parameters of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.hosts.laion_clap.internals import audio_states
from atr_moco_plugin.tensors.float32 import unit_norm
from atr_moco_plugin.tokens import AudioTokens, TextTokens

TEXT_MODELS = ("bert", "roberta")
"""Text towers (``--tmodel``) that give token states and a mask."""

_AUDIO_KEYS = ("waveform", "longer", "mel_fusion")


class ClapAudio(nn.Module):
    """CLAP's audio branch and projection.

    Args:
        clap: the CLAP model.
    """

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.branch = clap.audio_branch
        self.projection = clap.audio_projection

    def forward(
        self, batch: Mapping[str, Tensor], device: torch.device | str
    ) -> tuple[Tensor, AudioTokens]:
        """Encode a batch of clips.

        Args:
            batch: ``waveform`` ``[B, samples]`` at 48 kHz, with ``--enable-fusion`` also
                ``mel_fusion`` and ``longer``.
            device: where the branch is.

        Returns:
            ``[B, joint]`` unit-norm float32 embeddings and the tokens, all of them valid: CLAP
            repeats short clips and has no mask.
        """
        encoded = self.branch(batch, mixup_lambda=None, device=device)
        states = audio_states(encoded)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return unit_norm(self.projection(encoded["embedding"])), AudioTokens(states, mask)


class ClapText(nn.Module):
    """CLAP's text branch (BERT or RoBERTa) and projection.

    Args:
        clap: the CLAP model.
    """

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.branch = clap.text_branch
        self.projection = clap.text_projection

    @property
    def width(self) -> int:
        """Width of the token states."""
        return int(self.branch.config.hidden_size)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, TextTokens]:
        """Encode captions.

        Args:
            **inputs: ``input_ids`` and ``attention_mask``, ``[B, L]``; BERT takes
                ``token_type_ids`` too.

        Returns:
            ``[B, joint]`` unit-norm float32 embeddings and the tokens.
        """
        encoded = self.branch(**inputs)
        tokens = TextTokens(
            encoded["last_hidden_state"], inputs["attention_mask"].bool(), inputs["input_ids"]
        )
        return unit_norm(self.projection(encoded["pooler_output"])), tokens


class ClapPair(nn.Module):
    """A CLAP model as a criterion takes it.

    Args:
        clap: the CLAP model, with a BERT or RoBERTa text branch.
        head: ``head(text_tower, text_tokens, audio_tokens) -> logits [P, 2]``; ``None`` for a
            criterion that does not match.
    """

    def __init__(self, clap: Any, head: Any) -> None:
        super().__init__()
        self.audio = ClapAudio(clap)
        self.text = ClapText(clap)
        self.head = head
        self.embed_dim: int = clap.joint_embed_shape

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        """``[P, 2]`` matching logits of P pairs, index 1 = the pair matches."""
        logits: Tensor = self.head(self.text, text, audio)
        return logits


def audio_inputs(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of a batch that the audio branch reads."""
    return {key: batch[key] for key in _AUDIO_KEYS if key in batch}
