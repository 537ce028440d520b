"""The towers of a model as modules that ``torch.export`` traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atr_moco_plugin.tensors.float32 import unit_norm


class WaveformTower(nn.Module):
    """An audio tower that takes waveforms; its encoder's ``traceable()`` stands in for it.

    Args:
        tower: of a retrieval model.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        own = hasattr(tower.encoder, "traceable")
        self.encoder = tower.encoder.traceable() if own else tower.encoder
        self.pooling, self.projection = tower.pooling, tower.projection
        self.distance = tower.distance

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """``[B, samples]`` and ``[B]`` to ``[B, d]``."""
        embeddings = unit_norm(self.projection(self.pooling(*self.encoder(waveforms, lengths))))
        return embeddings if self.distance is None else self.distance(embeddings)


class FeatureTower(nn.Module):
    """An audio tower that takes what its encoder's ``features`` has computed.

    Args:
        tower: of a retrieval model.
        example: a named tuple; fields that are no tensors stay as they are in it.
    """

    def __init__(self, tower: Any, example: Any) -> None:
        super().__init__()
        self.tower, self.example = tower, example

    def forward(
        self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None
    ) -> Tensor:
        """The tensors of the features, in order, to ``[B, d]``."""
        tensors = [x for x in (first, second, third) if x is not None]
        fields = dict(zip(tensor_fields(self.example), tensors, strict=True))
        embeddings: Tensor = self.tower(features=self.example._replace(**fields))[0]
        return embeddings


class ClapAudio(nn.Module):
    """The audio tower of a ``ClapModel``, for clips that fit its window.

    Args:
        tower: its ``encoder`` is the model's.
        fuses: whether the model has ``enable_fusion``. Its crops are for longer clips, so only the
            first channel, the whole clip, is left.
    """

    def __init__(self, tower: Any, fuses: bool) -> None:
        super().__init__()
        self.tower, self.fuses = tower, fuses

    def forward(self, input_features: Tensor) -> Tensor:
        """``[B, crops, frames, mels]`` to ``[B, d]``."""
        if not self.fuses:
            embeddings: Tensor = self.tower(input_features)[0]
            return embeddings
        output = self.tower.encoder(input_features=input_features[:, :1], is_longer=None)
        vectors: Tensor = self.tower.unit_vectors(self.tower.projection(output.pooler_output))
        return vectors


class TextEmbedding(nn.Module):
    """A text tower that takes an ``attention_mask`` of integers, as tokenizers return it.

    Args:
        tower: of any retrieval model.
        inputs: keyword arguments of the tower, of ids and a bool mask.
    """

    def __init__(self, tower: Any, inputs: Callable[[Tensor, Tensor], Mapping[str, Any]]) -> None:
        super().__init__()
        self.tower, self.inputs = tower, inputs

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """``[B, L]`` int64 each to ``[B, d]``."""
        embeddings: Tensor = self.tower(**self.inputs(input_ids, attention_mask != 0))[0]
        return embeddings


def tensor_fields(features: Any) -> list[str]:
    """Names of the tensors in a named tuple."""
    return [x for x in features._fields if isinstance(getattr(features, x), Tensor)]


class PlainAttention(TorchFunctionMode):
    """Context in which attention is two products and a softmax.

    Torch's own is taken apart by a tracer into views that need a token number larger than it can
    prove.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention` of bidirectional encoders.

    Args:
        query: ``[..., L, width]``.
        key: ``[..., S, width]``.
        value: ``[..., S, width]``.
        attn_mask: bool, ``True`` where a key may be attended to, or float, added to the scores.
        dropout_p: 0.
        is_causal: ``False``.
        scale: of the scores; None is ``width ** -0.5``.
        enable_gqa: ``False``.

    Raises:
        NotImplementedError: for causal attention, shared keys or dropout.
    """
    if is_causal or enable_gqa or dropout_p:
        raise NotImplementedError("causal attention, shared keys or dropout")
    scores = (query * (query.size(-1) ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value
