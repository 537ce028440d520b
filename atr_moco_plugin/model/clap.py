"""A ``ClapModel`` of transformers as the two towers of a retrieval model, and its features.

A tower returns unit-norm embeddings ``[B, d]`` float32 and tokens for the matching head. The names
of its ``forward`` arguments are the keys of the batch that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import ClapFeatureExtractor, ClapModel

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.freezing import FreezableTower
from atr_moco_plugin.model.retrieval_model import RetrievalModel
from atr_moco_plugin.tokens import AudioTokens, TextTokens


class EncoderTower(FreezableTower):
    """A model of transformers and a projection of what it returns.

    Args:
        encoder: the model.
        projection: from ``width`` to the embedding.
        width: channels of the tokens.
    """

    def __init__(self, encoder: nn.Module, projection: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.width = width

    @property
    def layers(self) -> nn.ModuleList | None:
        """The encoder's layers, from input to output (stages, of a Swin transformer), for
        ``layer_decay`` and freezing: its only list called ``layer`` or ``layers`` that is in no
        other one. None where there is none or several, as in T5."""
        found: dict[str, nn.ModuleList] = {}
        for name, module in self.encoder.named_modules():
            listed = isinstance(module, nn.ModuleList) and name.split(".")[-1] in _LAYERS
            if listed and not any(name.startswith(f"{outer}.") for outer in found):
                found[name] = module
        return next(iter(found.values())) if len(found) == 1 else None

    def prepare(self, *args: Any, **inputs: Any) -> dict[str, Any]:
        """Compute what this tower and its momentum copy share: all but the projection, where the
        encoder is frozen.

        Args:
            args: as of ``forward``.
            inputs: as of ``forward``.

        Returns:
            Keyword arguments of ``forward``.
        """
        if self.frozen != "all" or "pooled" in inputs:
            return dict(signature(self.forward).bind(*args, **inputs).arguments)
        self.check_frozen()
        with torch.no_grad():
            tokens, pooled = self._encode(*args, **inputs)
        return {"tokens": tokens, "pooled": pooled}

    def _encode(self, *args: Any, **inputs: Any) -> tuple[Any, Tensor]:
        """Tokens, and what of them is projected, ``[B, width]``."""
        raise NotImplementedError

    def _embed(self, tokens: Any, pooled: Tensor | None, *args: Any) -> tuple[Tensor, Any]:
        """Embeddings and tokens, from the encoder's inputs where there is no ``pooled``."""
        if pooled is None:
            tokens, pooled = self._encode(*args)
        weight = next(self.projection.parameters())
        return self.unit_vectors(self.projection(pooled.to(weight.dtype))), tokens


_LAYERS = ("layer", "layers")


class ClapAudioTower(EncoderTower):
    """The audio half of a ``ClapModel``; its modules are used, not copied.

    Args:
        clap: the model.
        mean_frequencies: give a matching head one token a moment, the mean over its frequencies,
            as LAION-CLAP does; otherwise one for each place of the map.
    """

    def __init__(self, clap: ClapModel, mean_frequencies: bool = False) -> None:
        config = clap.config.audio_config
        super().__init__(clap.audio_model, clap.audio_projection, config.hidden_size)
        self._mean_frequencies = mean_frequencies
        self._fuses_crops: bool = config.enable_fusion

    @property
    def input_modules(self) -> list[nn.Module]:
        """The norm of the spectrogram, which is registered after the layers that follow it."""
        return [self.encoder.audio_encoder.batch_norm]

    def forward(
        self,
        input_features: Tensor | None = None,
        is_longer: Tensor | None = None,
        *,
        tokens: AudioTokens | None = None,
        pooled: Tensor | None = None,
    ) -> tuple[Tensor, AudioTokens]:
        """Encode clips.

        Args:
            input_features: ``[B, crops, frames, mels]`` float, from ``ClapFeatureExtractor``.
            is_longer: ``[B, 1]`` bool, from the same; only models with ``enable_fusion`` use it.
            tokens: from :meth:`prepare`, in place of features; ``None`` where nobody reads them.
            pooled: ``[B, width]``, from :meth:`prepare`.

        Raises:
            InputError: ``is_longer`` is missing where it is needed.
        """
        return self._embed(tokens, pooled, input_features, is_longer)

    def _encode(
        self, input_features: Tensor, is_longer: Tensor | None = None
    ) -> tuple[AudioTokens, Tensor]:
        if self._fuses_crops and is_longer is None:
            raise InputError(
                "This ClapModel fuses several crops of a clip (`enable_fusion`) and needs "
                "`is_longer`: take the feature extractor that belongs to it."
            )
        output = self.encoder(input_features=input_features, is_longer=is_longer)
        states = output.last_hidden_state
        tokens = audio_tokens(
            states.mean(dim=2, keepdim=True) if self._mean_frequencies else states
        )
        return tokens, output.pooler_output


class TextEncoderTower(EncoderTower):
    """A text model of transformers and a projection of what it returns."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        tokens: TextTokens | None = None,
        pooled: Tensor | None = None,
    ) -> tuple[Tensor, TextTokens]:
        """Encode captions.

        Args:
            input_ids: ``[B, L]`` int64.
            attention_mask: ``[B, L]``, 0 where a token is padding.
            tokens: from :meth:`prepare`, in place of ids; ``None`` where nobody reads them.
            pooled: ``[B, width]``, from :meth:`prepare`.
        """
        return self._embed(tokens, pooled, input_ids, attention_mask)


class ClapTextTower(TextEncoderTower):
    """The text half of a ``ClapModel``; its modules are used, not copied.

    Args:
        clap: the model.
    """

    def __init__(self, clap: ClapModel) -> None:
        width = clap.config.text_config.hidden_size
        super().__init__(clap.text_model, clap.text_projection, width)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[TextTokens, Tensor]:
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        tokens = TextTokens(output.last_hidden_state, attention_mask.bool(), input_ids)
        return tokens, output.pooler_output


class TowerPair(RetrievalModel):
    """Two towers and a matching head, as a criterion takes them.

    Args:
        audio: ``audio(**inputs) -> (embeddings, AudioTokens)``.
        text: ``text(**inputs) -> (embeddings, TextTokens)``.
        head: ``head(text_encoder, text_tokens, audio_tokens) -> logits [P, 2]``; None for a
            criterion that does not match.
        embed_dim: size d of the embeddings.
    """

    def __init__(self, audio: Any, text: Any, head: Any, embed_dim: int) -> None:
        super().__init__(audio, text, head)
        self._embed_dim = embed_dim

    @property
    def _projected(self) -> int:
        return self._embed_dim


def audio_tokens(states: Tensor) -> AudioTokens:
    """Token states of an audio encoder, all of them valid.

    Args:
        states: ``[B, T, width]``, or ``[B, width, F, T]`` as HTSAT and other encoders of images
            return them; each place of the map becomes a token.
    """
    if states.ndim == 4:
        states = states.flatten(2).transpose(1, 2)
    return AudioTokens(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))


def clap_temperature(clap: ClapModel) -> float:
    """The temperature tau of a model's two logit scales, which are logarithms of ``1 / tau``: their
    geometric mean."""
    mean = (clap.logit_scale_a.detach().double() + clap.logit_scale_t.detach().double()) / 2
    return float((-mean).exp())


def clip_features(
    extractor: ClapFeatureExtractor, waveform: NDArray[np.float32], seed: int
) -> Tensor:
    """Features of one clip, a function of the waveform and the seed alone.

    Args:
        extractor: draws the crops of longer clips from numpy's global random state, which is
            restored afterwards.
        waveform: ``[samples]`` at the extractor's rate.
        seed: from 0 to ``2**32 - 1``.

    Returns:
        ``[crops, frames, mels]`` float32.
    """
    with _draws_from(seed):
        batch = extractor([waveform], sampling_rate=extractor.sampling_rate, return_tensors="pt")
    features: Tensor = batch["input_features"][0].float()
    return features


@contextmanager
def _draws_from(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
