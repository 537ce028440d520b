"""What criteria gather from all processes before they compute a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from atr_moco_plugin.criterion.positives import PositivesMode, positive_pairs
from atr_moco_plugin.criterion.running_sums import RunningSums
from atr_moco_plugin.distributed import (
    gather,
    gather_counts,
    gather_numbers,
    gather_packed,
    pad_to,
    process_index,
)
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tokens import AudioTokens, TextTokens


def equal_buffers(module: nn.Module) -> list[str]:
    """Names of the buffers, large ones, that every process fills alike: DDP need not send them."""
    return [
        f"{name}.{buffer}" if name else buffer
        for name, part in module.named_modules()
        if isinstance(part, EmbeddingQueue | RunningSums)
        for buffer, _ in part.named_buffers()
    ]


class GlobalBatch(NamedTuple):
    """The N items of all processes, in process order; in a single process its B.

    Attributes:
        counts: items of every process.
        a: ``[N, d]`` unit-norm audio embeddings that queries are compared with: the online ones,
            through which the gradient flows, or the keys of a momentum criterion.
        u: ``[N, d]`` unit-norm text embeddings, likewise.
        clip_ids: ``[N]`` int64, or ``[N, 2]`` of mixtures.
        caption_ids: of the same shape.
    """

    counts: list[int]
    a: Tensor
    u: Tensor
    clip_ids: Tensor
    caption_ids: Tensor

    @property
    def own(self) -> slice:
        """The rows of this process."""
        first = sum(self.counts[: process_index()])
        return slice(first, first + self.counts[process_index()])

    def positives(self, mode: PositivesMode) -> Tensor:
        """``[B, N]`` bool: which items are positives of those of this process."""
        own = self.clip_ids[self.own], self.caption_ids[self.own]
        return positive_pairs(*own, self.clip_ids, self.caption_ids, mode)


class OnlineBatch(NamedTuple):
    """What the online towers made of the items to draw hard negatives from.

    Attributes:
        a: ``[M, d]`` embeddings of the clips.
        u: ``[M, d]`` embeddings of the captions.
        audio: tokens of M clips.
        text: tokens of M captions; without states where the head reads none.
    """

    a: Tensor
    u: Tensor
    audio: AudioTokens
    text: TextTokens


@not_compiled
def gather_batch(a_m: Tensor, u_m: Tensor, clip_ids: Tensor, caption_ids: Tensor) -> GlobalBatch:
    """Gather momentum embeddings and ids of all processes, in two exchanges."""
    counts = gather_counts(len(a_m), a_m.device)
    return GlobalBatch(counts, *gather_packed(a_m, u_m, clip_ids, caption_ids, counts=counts))


def gather_batch_and_tokens(
    a_m: Tensor, u_m: Tensor, clip_ids: Tensor, caption_ids: Tensor, online: OnlineBatch
) -> tuple[GlobalBatch, OnlineBatch]:
    """:func:`gather_batch`, and what the online towers made of the items of all processes.

    Two exchanges, and one more for the token states of each modality. The gradient flows through
    the states. No gradient flows through the gathered embeddings: they only decide which negatives
    are drawn.
    """
    a, u, audio, text = online
    shapes = gather_numbers([len(a), audio.mask.size(1), text.mask.size(1)], a.device)
    counts, audio_lengths, text_lengths = (list(x) for x in zip(*shapes, strict=True))
    audio_mask, text_mask, input_ids = (
        pad_to(x, 1, max(lengths))
        for x, lengths in (
            (audio.mask, audio_lengths),
            (text.mask, text_lengths),
            (text.input_ids, text_lengths),
        )
    )
    a_m, u_m, clip_ids, caption_ids, a, u, audio_mask, text_mask, input_ids = gather_packed(
        a_m, u_m, clip_ids, caption_ids, a, u, audio_mask, text_mask, input_ids, counts=counts
    )
    audio_states = _gather_states(audio.states, audio_lengths, counts)
    text_states = None if text.states is None else _gather_states(text.states, text_lengths, counts)
    return (
        GlobalBatch(counts, a_m, u_m, clip_ids, caption_ids),
        OnlineBatch(
            a,
            u,
            AudioTokens(audio_states, audio_mask),
            TextTokens(text_states, text_mask, input_ids),
        ),
    )


def _gather_states(states: Tensor, lengths: Sequence[int], counts: Sequence[int]) -> Tensor:
    return gather(pad_to(states, 1, max(lengths)), grad=True, counts=counts)
