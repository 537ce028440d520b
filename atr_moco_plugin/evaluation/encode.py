"""Clips and captions through their towers, batch by batch, on one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from atr_moco_plugin.contracts import MatchingModel, Tower
from atr_moco_plugin.distributed import (
    gather,
    gather_counts,
    gather_padded,
    gather_values,
    process_index,
    world_size,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.captions import CaptionBatches
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.learned_distance import LearnedDistance
from atr_moco_plugin.tokens import TokensT, map_tokens

ItemT = TypeVar("ItemT")

Advance = Callable[[int], object]
"""Called with the number of items that were just done."""


def no_progress(done: int) -> None:
    """An :data:`Advance` that shows nothing."""


def share(batches: int) -> list[int]:
    """Numbers of the batches that this process encodes, in turn with the other processes.

    Every process has the same number of turns. A process without a batch of its own in the last
    turn encodes the last batch again, and :func:`encode_shared` leaves the result out.
    """
    turns = -(-batches // world_size())
    return [min(turn * world_size() + process_index(), batches - 1) for turn in range(turns)]


def own_share(items: Sequence[ItemT], batch_size: int) -> tuple[list[ItemT], int]:
    """The items of the batches that :func:`share` gives this process, in their order.

    Returns:
        The items, and the number of batches of all processes together.
    """
    total = -(-len(items) // batch_size)
    own: list[ItemT] = []
    for i in share(total):
        own += items[i * batch_size : (i + 1) * batch_size]
    return own, total


@torch.no_grad()
def encode_shared(
    tower: Tower[Any],
    batches: Iterable[Sequence[Tensor] | Mapping[str, Any]],
    total: int,
    *,
    rows: Tensor | None = None,
    keep_tokens: bool,
    keep_states: bool = True,
    gather_states: bool,
    distance: LearnedDistance | None = None,
    advance: Advance = no_progress,
) -> Encoded:
    """Embed items with all processes; the embeddings equal the embeddings of one process.

    Batches go to the processes in turn and have the same items as on one process.

    Args:
        tower: the audio or text tower, in eval mode.
        batches: the batches that :func:`share` gives this process, on the tower's device: its
            arguments in their order, or by their names.
        total: batches of all processes together, each counted once.
        rows: see :class:`Encoded`.
        keep_tokens: keep the tokens for re-ranking.
        keep_states: keep their states too; captions go without where the head reads none.
        gather_states: keep the tokens of all items on every process, not only of its own.
        distance: see :class:`Encoded`.
        advance: called after every turn with its number of items.

    Returns:
        All embeddings, the same on every process.

    Raises:
        InputError: on every process alike, when one of them cannot read a batch.
    """
    sharded = not gather_states and world_size() > 1
    encoded = Encoded(rows, sharded=sharded, distance=distance)
    remaining, turn = iter(batches), 0
    while True:
        try:
            batch = next(remaining)
        except StopIteration:
            return encoded
        except (InputError, OSError) as ex:
            device = next(tower.parameters()).device
            gather_counts(-1, device)  # in place of this turn's batch, so that no process waits
            _stop(str(ex), device)
        embeddings, tokens = tower(**batch) if isinstance(batch, Mapping) else tower(*batch)
        mine = len(embeddings) if turn * world_size() + process_index() < total else 0
        turn += 1
        counts = gather_counts(mine, embeddings.device)
        if min(counts) < 0:
            _stop(None, embeddings.device)
        kept = None
        if keep_tokens:
            tokens = tokens if keep_states else tokens._replace(states=None)
            kept = _first_rows(tokens, mine)
            kept = type(tokens)(*gather_padded(*kept)) if gather_states else kept
        first = 0 if gather_states else sum(counts[: process_index()])
        encoded.add(gather(embeddings[:mine]), kept, first)
        advance(sum(counts))


def encode_captions(
    model: MatchingModel,
    captions: CaptionBatches,
    device: torch.device,
    *,
    keep_tokens: bool,
    distance: LearnedDistance | None = None,
    advance: Advance = no_progress,
) -> Encoded:
    """Embed captions with all processes.

    Args:
        model: a :class:`~atr_moco_plugin.model.RetrievalModel` in eval mode.
        captions: the same on every process.
        device: where the model is.
        keep_tokens: keep the tokens of all captions on every process, for re-ranking. Their states
            are left out where the model says with ``needs_text_states`` that it reads none.
        distance: see :class:`Encoded`.
        advance: called after every turn with its number of captions.
    """
    batches = captions.batches
    return encode_shared(
        model.text,
        ([x.to(device) for x in batches[i]] for i in share(len(batches))),
        len(batches),
        rows=captions.rows,
        keep_tokens=keep_tokens,
        keep_states=getattr(model, "needs_text_states", True),
        gather_states=True,
        distance=distance,
        advance=advance,
    )


def _first_rows(tokens: TokensT, n: int) -> TokensT:
    return map_tokens(lambda x: x[:n], tokens)


def _stop(reason: str | None, device: torch.device) -> NoReturn:
    """Raise the first reason that a process has, on every process."""
    raise InputError(next(x for x in gather_values(reason, device) if x is not None))
