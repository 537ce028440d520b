"""The best candidates of every query and what the matching head says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.encode import Advance, Encoded, no_progress
from atr_moco_plugin.evaluation.rerank import top_candidates
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens

# Cosines in one block of queries, 64 MiB in float64.
_BLOCK_ELEMENTS = 2**23


class Cosines:
    """Cosines of A clips and C captions, made a block of queries at a time.

    Args:
        audio: A encoded clips.
        text: C encoded captions.

    Raises:
        ValueError: when nothing was encoded or an embedding is not finite.
    """

    def __init__(self, audio: Encoded, text: Encoded) -> None:
        self._audio = _checked(audio.embeddings, "clips")
        self._text = _checked(text.distinct, "captions")
        self._rows = text.rows

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        return len(self._audio), len(self._rows)

    def of_clips(self) -> Iterator[tuple[int, Tensor]]:
        """The first clip of each block, and its cosines ``[n, C]`` float32."""
        for start, block in _blocks(self._audio, len(self._rows)):
            # Over the distinct captions, so that equal ones tie exactly.
            yield start, _cosines(block, self._text)[:, self._rows]

    def of_captions(self) -> Iterator[tuple[int, Tensor]]:
        """The first caption of each block, and its cosines ``[n, A]`` float32."""
        for start, rows in _blocks(self._rows, len(self._audio)):
            yield start, _cosines(self._text[rows], self._audio)

    def matrix(self) -> Tensor:
        """``[A, C]`` float32 in main memory."""
        return torch.cat([block.cpu() for _, block in self.of_clips()])


def _checked(embeddings: Tensor, name: str) -> Tensor:
    broken = int((~embeddings.isfinite()).any(dim=1).sum())
    if broken:
        raise InputError(
            f"The embeddings of {broken} of {len(embeddings)} {name} are not finite; the "
            "checkpoint is broken, or a clip's audio is."
        )
    return embeddings


def _blocks(queries: Tensor, items: int) -> Iterator[tuple[int, Tensor]]:
    rows = max(_BLOCK_ELEMENTS // items, 1)
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows]


def _cosines(queries: Tensor, items: Tensor) -> Tensor:
    # In float64, which neither bf16 autocast nor TF32 rounds: ties count against the model.
    return (queries.double() @ items.double().T).float()


class Candidates(NamedTuple):
    """The K best candidates of every query by cosine, the best first.

    Attributes:
        texts: ``[A, min(K, C)]`` int64, captions of each clip.
        text_logits: ``[A, min(K, C), 2]`` float32, the matching head on those pairs.
        clips: ``[C, min(K, A)]`` int64, clips of each caption.
        clip_logits: ``[C, min(K, A), 2]`` float32.
    """

    texts: Tensor
    text_logits: Tensor
    clips: Tensor
    clip_logits: Tensor


class Pairs(NamedTuple):
    """What the head is asked: P distinct pairs of a clip and a distinct caption.

    Attributes:
        texts: see :class:`Candidates`.
        clips: likewise.
        numbers: ``[P]`` int64, ascending, ``clip * U + row`` with U distinct captions.
        of_texts: ``[A, K]`` int64, where the pair of each candidate is in ``numbers``.
        of_clips: ``[C, K]`` int64.
    """

    texts: Tensor
    clips: Tensor
    numbers: Tensor
    of_texts: Tensor
    of_clips: Tensor


def find_pairs(cosines: Cosines, text: Encoded, k: int) -> Pairs:
    """The pairs that re-ranking the top k of every query needs, each once.

    Args:
        cosines: of all clips and captions.
        text: the encoded captions.
        k: candidates of each query; more than there are means all.

    Raises:
        ValueError: when ``k`` is not positive.
    """
    if k < 1:
        raise InputError(f"Re-ranking needs k >= 1, got {k}.")
    texts = torch.cat([top_candidates(block, k) for _, block in cosines.of_clips()])
    clips = torch.cat([top_candidates(block, k) for _, block in cosines.of_captions()])
    distinct, rows = len(text.distinct), text.rows
    of_texts = torch.arange(len(texts), device=texts.device)[:, None] * distinct + rows[texts]
    of_clips = clips * distinct + rows[:, None]
    numbers = torch.unique(torch.cat([of_texts.flatten(), of_clips.flatten()]))
    return Pairs(
        texts,
        clips,
        numbers,
        torch.searchsorted(numbers, of_texts),
        torch.searchsorted(numbers, of_clips),
    )


@torch.no_grad()
def match_pairs(
    model: Module,
    audio: Encoded,
    text: Encoded,
    pairs: Pairs,
    *,
    batch_size: int,
    advance: Advance = no_progress,
) -> Candidates:
    """Ask the matching head about every pair once.

    Where each process has the tokens of its own clips alone, it takes their pairs, and all
    processes get all logits.

    Args:
        model: a model in eval mode.
        audio: the clips, with tokens.
        text: the captions, with tokens.
        pairs: from :func:`find_pairs`, the same on every process.
        batch_size: most pairs of a forward pass, which are all of one clip.
        advance: told after every pass how many pairs it had.

    Raises:
        ValueError: when tokens were not kept, or a logit is not finite.
    """
    distinct = len(text.distinct)
    numbers = pairs.numbers.cpu()
    clip, row = numbers // distinct, numbers % distinct
    own = torch.isin(clip, audio.kept).nonzero().squeeze(1)
    if len(text.kept) < distinct or not (audio.sharded or len(own) == len(numbers)):
        raise InputError(
            "Re-ranking needs the token states of every clip and caption, but they were not kept."
        )
    logits = torch.zeros(len(numbers), 2, device=pairs.numbers.device)
    # A clip at a time: its tokens are prepared once for all of a pass, and its captions come in the
    # order of their numbers, which is that of their lengths.
    _, counts = torch.unique_consecutive(clip[own], return_counts=True)
    for of_clip in own.split(counts.tolist()):
        tokens = audio.audio_tokens(clip[of_clip[:1]])
        for part in of_clip.split(batch_size):
            found = _match_clip(model, text.text_tokens(row[part]), tokens)
            logits[part.to(logits.device)] = found.float()
            advance(len(part))
    if audio.sharded:
        # Every pair is one process's alone, and adding zeros is exact.
        dist.all_reduce(logits)
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        raise InputError(f"The matching logits of {broken} of {len(logits)} pairs are not finite.")
    return Candidates(pairs.texts, logits[pairs.of_texts], pairs.clips, logits[pairs.of_clips])


def _match_clip(model: Module, text: TextTokens, audio: AudioTokens) -> Tensor:
    """Logits of captions with one clip, whose keys and values a model that can makes once."""
    rows = torch.zeros(len(text.mask), dtype=torch.int64, device=text.mask.device)
    if getattr(model, "shares_audio", False):
        return model.match(text, audio, rows)
    return model.match(text, take_tokens(audio, rows))
