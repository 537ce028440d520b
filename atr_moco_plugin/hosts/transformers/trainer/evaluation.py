"""One batch of an evaluation: embeddings of clips and captions, and the loss between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion import contrastive_loss, positive_pairs
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.float32 import unit_norm

NO_ITEM = -100
"""Clip or caption id where there is none; ``Trainer`` fills results up with it. Ids are not
negative."""


def embed_clips(
    tower: nn.Module, audio: Mapping[str, Any], clip_id: Tensor, windows: Tensor | None
) -> Tensor:
    """Embed each clip of a batch once.

    Args:
        tower: ``tower(**audio) -> (embeddings, tokens)``.
        audio: its inputs; tensors are ``[B, ...]``, with ``windows`` ``[B, W, ...]``.
        clip_id: ``[B]`` int64; rows of one clip have equal audio.
        windows: ``[B]`` int64, how many of the W windows of a clip are there; None where clips have
            no windows.

    Returns:
        ``[B, d]`` unit-norm float32, the mean over the windows scaled to unit norm.

    Raises:
        InputError: rows of one clip have different audio.
    """
    first, owner = first_rows(clip_id)
    if len(first) < len(clip_id):
        inputs = [x.flatten(1) for x in audio.values() if isinstance(x, Tensor) and x.ndim > 0]
        differ = [(x != x[first[owner]]).any(dim=1) for x in inputs]
        check_one_clip_each(clip_id, torch.stack(differ).any(dim=0))
    if windows is None:
        embeddings, _ = tower(**_select(audio, first))
        return embeddings[owner]
    windows = windows[first]
    there = torch.arange(int(windows.max()), device=windows.device) < windows[:, None]
    rows, window = there.nonzero(as_tuple=True)
    embeddings, _ = tower(**_select(audio, (first[rows], window)))
    every = embeddings.new_zeros(*there.shape, embeddings.shape[1])
    every[rows, window] = embeddings
    return unit_norm(every.sum(dim=1))[owner]


def check_one_clip_each(clip_id: Tensor, differs: Tensor) -> None:
    """Refuse clip ids that stand for several pieces of audio, all but one of which would be left
    out of the figures.

    Args:
        clip_id: ``[N]`` int64.
        differs: ``[N]`` bool, whether the audio of a row is not that of the first one of its clip.
    """
    wrong = clip_id[differs & (clip_id != NO_ITEM)].unique()
    if len(wrong):
        raise InputError(
            f"The clip_id {int(wrong[0])} of the evaluation set is in rows with different audio, "
            f"and so are {len(wrong) - 1:,} more, but a clip is one piece of audio: give each its own "
            "id, such as `atr_moco_plugin.ids.clip_id` of its file."
        )


def embed_captions(tower: nn.Module, text: Mapping[str, Any], caption_id: Tensor) -> Tensor:
    """Embed the captions of a batch.

    Args:
        tower: ``tower(**text) -> (embeddings, tokens)``.
        text: its inputs; tensors are ``[B, ...]`` or ``[B, K, ...]``, as ``caption_id`` is.
        caption_id: ``[B]``, or ``[B, K]`` int64 with :data:`NO_ITEM` where a clip has fewer than K.

    Returns:
        ``[B, d]`` or ``[B, K, d]`` unit-norm float32, zero where there is no caption.
    """
    if caption_id.ndim == 1:
        embeddings, _ = tower(**text)
        return embeddings
    there = (caption_id != NO_ITEM).nonzero(as_tuple=True)
    embeddings, _ = tower(**_select(text, there))
    every = embeddings.new_zeros(*caption_id.shape, embeddings.shape[1])
    every[there] = embeddings
    return every


def evaluation_loss(
    audio: Tensor,
    text: Tensor,
    clip_id: Tensor,
    caption_id: Tensor,
    mode: str,
    temperature: Tensor,
) -> Tensor:
    """Contrastive loss among the (clip, caption) pairs of a batch, without queues.

    Args:
        audio: ``[B, d]``.
        text: ``[B, d]`` or ``[B, K, d]``.
        clip_id: ``[B]`` int64.
        caption_id: ``[B]`` or ``[B, K]`` int64.
        mode: which pairs are positives, see :func:`~atr_moco_plugin.criterion.positive_pairs`.
        temperature: tau.

    Returns:
        Scalar; 0 where there is no pair.
    """
    rows, column, clips, captions = pairs_of(clip_id, caption_id)
    if not len(rows):
        return audio.new_zeros(())
    a = audio[rows]
    u = text[rows] if text.ndim == 2 else text[rows, column]
    positives = positive_pairs(clips, captions, clips, captions, mode)
    return contrastive_loss(a, u, a, u, positives, temperature)


def pairs_of(clip_id: Tensor, caption_id: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The (clip, caption) pairs of rows that have one caption or several.

    Args:
        clip_id: ``[B]`` int64.
        caption_id: ``[B]`` or ``[B, K]`` int64.

    Returns:
        Row, column, clip id and caption id of each pair, ``[P]`` int64, row by row.
    """
    ids = caption_id if caption_id.ndim == 2 else caption_id[:, None]
    rows, column = ((ids != NO_ITEM) & (clip_id != NO_ITEM)[:, None]).nonzero(as_tuple=True)
    return rows, column, clip_id[rows], ids[rows, column]


def first_rows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where each id is first, and which of them each row has.

    Args:
        ids: ``[N]`` int64, U of them different.

    Returns:
        ``[U]`` and ``[N]`` int64, so that ``ids[first][owner]`` is ``ids``.
    """
    unique, owner = ids.unique(return_inverse=True)
    rows = torch.arange(len(ids), device=ids.device)
    first = torch.full_like(unique, len(ids)).scatter_reduce(0, owner, rows, "amin")
    return first, owner


def _select(inputs: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    return {
        name: value[rows] if isinstance(value, Tensor) else value for name, value in inputs.items()
    }
