"""Audio-text contrastive loss (ATC) with momentum soft targets, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.criterion.cross_entropy import Columns, soft_target_cross_entropy
from atr_moco_plugin.tensors.float32 import cosines


def atc_targets(positives: Tensor) -> Tensor:
    """Spread one unit of target mass evenly over the positives of each row.

    Args:
        positives: ``[B, M]`` bool with at least one ``True`` a row (an item is its own positive).

    Returns:
        ``[B, M]`` float32, rows sum to 1.
    """
    weights = positives.float()
    return weights / weights.sum(dim=1, keepdim=True)


def contrastive_loss(
    audio: Tensor,
    text: Tensor,
    audio_columns: Tensor,
    text_columns: Tensor,
    positives: Tensor,
    temperature: Tensor,
    *,
    decoupled: bool = False,
) -> Tensor:
    """Symmetric InfoNCE without momentum (CLIP, Radford et al. 2021; CLAP, Wu et al. 2023).

    Decoupled (Yeh et al. 2022, eq. 6), a query with logits ``s_j``, targets ``y_j`` and negatives N
    has the loss ``log sum_{j in N} exp(s_j) - sum_j y_j s_j``: its positives are no longer in the
    denominator, which would shrink the gradient of all that are easy. A query without any negative
    has no denominator and is left out: its loss is 0, as it is in InfoNCE with one positive.

    Args:
        audio: ``[B, d]`` unit-norm audio embeddings, the audio-to-text queries.
        text: ``[B, d]`` unit-norm text embeddings, the text-to-audio queries.
        audio_columns: ``[M, d]`` the columns of the text queries: ``audio``, or that of all
            processes. The gradient flows through it.
        text_columns: ``[M, d]`` the columns of the audio queries.
        positives: ``[B, M]`` bool, at least one ``True`` a row.
        temperature: scalar (or one-element) tensor, tau.
        decoupled: leave the positives out of the denominators.

    Returns:
        Scalar float32.
    """
    with torch.autocast(audio.device.type, enabled=False):
        loss = _decoupled_cross_entropy if decoupled else _cross_entropy
        a2t = loss(_logits(audio, text_columns, temperature), positives)
        t2a = loss(_logits(text, audio_columns, temperature), positives)
        return (a2t + t2a) / 2


def atc_loss(
    audio: Tensor,
    text: Tensor,
    audio_m: Tensor,
    text_m: Tensor,
    audio_queue: Tensor,
    text_queue: Tensor,
    positives: Tensor,
    temperature: Tensor,
    alpha: float,
    *,
    ignore: Tensor | None = None,
    first_row: int = 0,
    online_columns: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean of the audio-to-text and text-to-audio cross-entropies against soft targets.

    For a query q with columns c_j = [momentum embeddings of the batch | queue], the loss is the
    cross-entropy between ``softmax(q . c_j / tau)`` and
    ``alpha * softmax(q_m . c_j / tau) + (1 - alpha) * y``, where ``q_m`` is the momentum embedding
    of the same item and ``y`` spreads over its positives (ALBEF, Li et al. 2021, eq. 6; BLIP, Li
    et al. 2022, with ids; SNSIM and "soft output" of Understanding Audio-Text Retrieval Through
    Singular Value Decomposition, 2025). Computed in float32, gradient included, whatever the
    autocast state and :func:`torch.set_float32_matmul_precision`.

    With ``online_columns`` the columns of the batch are online embeddings instead, so that its part
    of the loss is that of CLIP and the gradient flows through both sides. The soft targets stay
    those of the momentum embeddings, of the query and of every column.

    Args:
        audio: ``[B, d]`` unit-norm online audio embeddings.
        text: ``[B, d]`` unit-norm online text embeddings.
        audio_m: ``[B, d]`` unit-norm momentum audio embeddings; no gradient flows to them.
        text_m: ``[B, d]`` unit-norm momentum text embeddings; no gradient flows to them.
        audio_queue: ``[K, d]`` valid rows of the audio queue, ``K`` may be 0.
        text_queue: ``[K, d]`` valid rows of the text queue, row k of the same item as
            ``audio_queue[k]``.
        positives: ``[B, B + K]`` bool, row i marks the columns that are positives of item i.
        temperature: scalar (or one-element) tensor, tau.
        alpha: weight of the momentum soft targets in ``[0, 1]``; 0 leaves the hard targets.
        ignore: ``[B, B + K]`` bool, columns that take no part in a row, neither as positive nor
            as negative. Must leave at least one positive a row.
        first_row: where in ``audio_m`` and ``text_m`` the B items start when they hold the M >= B
            items of all processes; ``positives`` and ``ignore`` are then ``[B, M + K]``.
        online_columns: online audio and text embeddings of the items of ``audio_m`` and ``text_m``,
            with a gradient; they are the columns in their place.

    Returns:
        Scalar float32.

    Raises:
        ValueError: when ``positives`` has another shape.
    """
    expected = (audio.size(0), audio_m.size(0) + audio_queue.size(0))
    if positives.shape != expected:
        raise ValueError(f"`positives` has shape {tuple(positives.shape)}, expected {expected}.")

    with torch.autocast(audio.device.type, enabled=False):
        own = slice(first_row, first_row + audio.size(0))
        options = (positives, temperature, alpha, ignore)
        momentum = (x.detach() for x in (audio_m, text_m, audio_queue, text_queue))
        audio_batch, text_batch, audio_rows, text_rows = (Columns(x, x) for x in momentum)
        if online_columns is not None:
            audio_batch, text_batch = map(Columns, online_columns, (audio_m, text_m))
        a2t = soft_target_cross_entropy(audio, audio_m[own], (text_batch, text_rows), *options)
        t2a = soft_target_cross_entropy(text, text_m[own], (audio_batch, audio_rows), *options)
        return (a2t + t2a) / 2


def _logits(query: Tensor, columns: Tensor, temperature: Tensor) -> Tensor:
    return cosines(query, columns) / temperature.float()


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    return F.cross_entropy(logits, atc_targets(positives))


def _decoupled_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    any_negative = (~positives).any(dim=1)
    # Of a row of positives nothing is left out: the gradient of an empty sum's logarithm is NaN.
    negatives = logits.masked_fill(positives & any_negative[:, None], float("-inf"))
    losses = negatives.logsumexp(dim=1) - (atc_targets(positives) * logits).sum(dim=1)
    return torch.where(any_negative, losses, 0.0).mean()
