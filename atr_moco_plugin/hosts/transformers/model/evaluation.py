"""One batch of an evaluation: embeddings of clips and captions, and the loss between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.criterion import contrastive_loss, positive_pairs
from atr_moco_plugin.criterion.chunk_rows import lengths_without_rows, rows_of
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.data.items import NO_ITEM
from atr_moco_plugin.learned_distance import LearnedDistance, TowerSide, mean_vectors
from atr_moco_plugin.tensors.float32 import unit_norm
from atr_moco_plugin.tensors.nests import tensors_of


def scored_by(tower: Any, factor: Tensor | None, side: TowerSide) -> Any:
    """A tower of a criterion that has learned a distance, as its bundle will have it.

    Args:
        tower: ``tower(**inputs) -> (embeddings, tokens)``.
        factor: of the distance; None leaves the tower as it is.
        side: which tower it is.
    """
    if factor is None:
        return tower
    distance = LearnedDistance(factor, side)

    def scored(**inputs: Any) -> tuple[Tensor, Any]:
        embeddings, tokens = tower(**inputs)
        return distance(embeddings), tokens

    return scored


def embed_clips(
    tower: Any,
    audio: Mapping[str, Any],
    clip_id: Tensor,
    windows: Tensor | None,
    factor: Tensor | None,
) -> Tensor:
    """Embed each clip of a batch once.

    Args:
        tower: ``tower(**audio) -> (embeddings, tokens)``.
        audio: its inputs; tensors, also those in tuples and mappings such as tokens, are
            ``[B, ...]``, with ``windows`` ``[B, W, ...]``. Others are for all rows.
        clip_id: ``[B]`` int64; rows of one clip have equal audio.
        windows: ``[B]`` int64, how many of the W windows a clip has; None where clips have no
            windows.
        factor: of a learned distance by which the tower is :func:`scored_by`, or None.

    Returns:
        ``[B, d]`` unit-norm float32, the mean over the windows scaled to unit norm, or their
        :func:`~atr_moco_plugin.learned_distance.mean_vectors`.

    Raises:
        InputError: rows of one clip have different audio, or an input has tensors with a row for
            each id beside others.
    """
    taken = _with_rows(audio, clip_id, "clip ids")
    first, owner = first_rows(clip_id)
    if len(first) < len(clip_id):
        differs = torch.zeros_like(clip_id, dtype=torch.bool)
        for x in tensors_of(taken):
            differs |= (x != x[first[owner]])[:, None].flatten(1).any(dim=1)
        check_one_clip_each(clip_id, differs)
    # Lists with a value for each row, perhaps, cannot be told from options of that length.
    whole = len(first) == len(clip_id) or len(clip_id) in lengths_without_rows(audio)
    if windows is None and whole:
        embeddings, _ = tower(**audio)
        owner = torch.arange(len(clip_id), device=clip_id.device)
    elif windows is None:
        embeddings, _ = tower(**{**audio, **rows_of(taken, first)})
    else:
        _check_lists(audio, len(clip_id))
        windows = windows[first]
        present = torch.arange(int(windows.max()), device=windows.device) < windows[:, None]
        rows, window = present.nonzero(as_tuple=True)
        every, _ = tower(**{**audio, **rows_of(taken, (first[rows], window))})
        sums = _placed(every, present).sum(dim=1)
        embeddings = unit_norm(sums) if factor is None else mean_vectors(sums)
    clips: Tensor = embeddings[owner]
    return clips


def check_one_clip_each(clip_id: Tensor, differs: Tensor) -> None:
    """Refuse a clip id that stands for several pieces of audio: the figures would take the first
    one alone.

    Args:
        clip_id: ``[N]`` int64.
        differs: ``[N]`` bool, whether the audio of a row differs from the first row of its clip.
    """
    wrong = clip_id[differs & (clip_id != NO_ITEM)].unique()
    if len(wrong):
        raise InputError(
            f"The clip_id {int(wrong[0])} of the evaluation set is in rows with different audio, "
            f"and so are {len(wrong) - 1:,} more, but a clip is one piece of audio: give each "
            "its own id, such as `atr_moco_plugin.ids.clip_id` of its file."
        )


def embed_captions(tower: Any, text: Mapping[str, Any], caption_id: Tensor) -> Tensor:
    """Embed the captions of a batch.

    Args:
        tower: ``tower(**text) -> (embeddings, tokens)``.
        text: its inputs; tensors, also those in tuples and mappings such as tokens, are
            ``[B, ...]`` or ``[B, K, ...]``, as ``caption_id`` is. Others are for all rows.
        caption_id: ``[B]``, or ``[B, K]`` int64 with
            :data:`~atr_moco_plugin.hosts.transformers.data.items.NO_ITEM` where a clip has fewer
            than K.

    Returns:
        ``[B, d]`` or ``[B, K, d]`` unit-norm float32; in ``[B, K, d]`` zero where there is no
        caption.

    Raises:
        InputError: an input has tensors with a row for each id of ``[B, K]`` beside others, or
            one with a row for each of B alone.
    """
    embeddings: Tensor
    if caption_id.ndim == 1:
        embeddings, _ = tower(**text)
        return embeddings
    taken = _with_rows(text, caption_id, "caption ids")
    _check_lists(text, len(caption_id))
    present = caption_id != NO_ITEM
    embeddings, _ = tower(**{**text, **rows_of(taken, present.nonzero(as_tuple=True))})
    return _placed(embeddings, present)


def evaluation_loss(
    audio: Tensor, text: Tensor, clip_id: Tensor, caption_id: Tensor, mode: Any, temperature: Tensor
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
    pairs = pairs_of(clip_id, caption_id)
    rows = pairs[0]
    if not len(rows):
        return audio.new_zeros(())
    a, u = audio[rows], text[pairs]
    clips, captions = clip_id[rows], caption_id[pairs]
    positives = positive_pairs(clips, captions, clips, captions, mode)
    return contrastive_loss(a, u, a, u, positives, temperature)


def pairs_of(clip_id: Tensor, caption_id: Tensor) -> tuple[Tensor, ...]:
    """The (clip, caption) pairs of rows with one caption or several.

    Args:
        clip_id: ``[B]`` int64.
        caption_id: ``[B]`` or ``[B, K]`` int64.

    Returns:
        An index tuple of the P pairs, ``(rows,)`` or, for ``[B, K]``, ``(rows, columns)``, each
        ``[P]`` int64 and in the order of the rows. ``caption_id[pairs]`` are their captions,
        ``clip_id[pairs[0]]`` their clips.
    """
    clips = clip_id if caption_id.ndim == 1 else clip_id[:, None]
    return ((caption_id != NO_ITEM) & (clips != NO_ITEM)).nonzero(as_tuple=True)


def first_rows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each id, and which of them each row belongs to.

    Args:
        ids: ``[N]`` int64, U of them different.

    Returns:
        ``[U]`` and ``[N]`` int64, so that ``ids[first][owner]`` is ``ids``.
    """
    unique, owner = ids.unique(return_inverse=True)
    rows = torch.arange(len(ids), device=ids.device)
    first = torch.full_like(unique, len(ids)).scatter_reduce(0, owner, rows, "amin")
    return first, owner


def _with_rows(inputs: Mapping[str, Any], ids: Tensor, name: str) -> dict[str, Any]:
    """The inputs whose tensors have a row for each id; the others are for all rows, such as a bank
    that a tower looks things up in. Refuses those that are neither."""
    taken = {}
    for key, value in inputs.items():
        tensors = list(tensors_of(value))
        if not any(x.shape[:1] == ids.shape[:1] for x in tensors):
            continue
        for x in tensors:
            if x.shape[: ids.ndim] != ids.shape:
                raise InputError(
                    f"The batch has {name} of the shape {list(ids.shape)}, but `{key}` has a "
                    f"tensor of the shape {list(x.shape)}: an evaluation takes a row for each id."
                )
        taken[key] = value
    return taken


def _check_lists(inputs: Mapping[str, Any], rows: int) -> None:
    """Refuse lists that may have a value for each row, where rows are chosen and put in order."""
    for key, value in inputs.items():
        if isinstance(value, list) and len(value) == rows and not list(tensors_of(value)):
            raise InputError(
                f"`{key}` is a list of {rows} values, as many as the batch has rows, and rows are "
                "chosen here: make it a tensor with a row for each, or a tuple if it is for all."
            )


def _placed(embeddings: Tensor, present: Tensor) -> Tensor:
    """Embeddings ``[P, d]`` in the P true places of a mask, with zeros in the others."""
    every = embeddings.new_zeros(*present.shape, embeddings.shape[1])
    every[present] = embeddings
    return every
