"""Which clips and captions are relevant to each other, a block of queries at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:  # metrics work without the libraries that decode audio
    from atr_moco_plugin.data.retrieval_set import RetrievalSet

Direction = Literal["a2t", "t2a"]
"""``a2t``: clips are the queries and captions the items; ``t2a``: the other way round."""

DIRECTIONS: tuple[Direction, Direction] = ("a2t", "t2a")

DUPLICATES = "_dup"
"""Suffix of the duplicate-aware figures, in which captions with equal text count as one."""


class Relevance(Protocol):
    """Relevance of A clips and C captions to each other.

    It is a matrix ``[A, C]`` that need not exist: blocks are made on request.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        ...

    def block(self, direction: Direction, start: int, stop: int) -> Tensor:
        """``[n, items]`` bool: items relevant to the queries ``start`` to ``stop``."""
        ...

    def counts(self) -> tuple[Tensor, Tensor]:
        """``[A]`` captions of each clip and ``[C]`` clips of each caption, int64."""
        ...


def relevances(retrieval_set: RetrievalSet, device: torch.device) -> dict[str, Relevance]:
    """The relevance of a split, by the suffix of the figures that it gives.

    Returns:
        ``""`` for the strict figures, and :data:`DUPLICATES` where every caption has one clip.
    """
    owner = retrieval_set.caption_to_audio
    if owner is None:
        return {"": RelevanceMatrix(retrieval_set.relevance.to(device))}
    clips, owner, ids = len(retrieval_set.clips), owner.to(device), retrieval_set.caption_ids
    return {
        "": CaptionRelevance(owner, clips),
        DUPLICATES: CaptionRelevance(owner, clips, caption_ids=ids.to(device)),
    }


class RelevanceMatrix:
    """Any relevance, given as a matrix.

    Args:
        matrix: ``[A, C]`` bool.

    Raises:
        ValueError: when it is not a bool matrix.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 2 or matrix.dtype != torch.bool:
            raise ValueError(
                f"Relevance is a bool matrix [A, C], got {matrix.dtype} {list(matrix.shape)}."
            )
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        clips, captions = self._matrix.shape
        return clips, captions

    def block(self, direction: Direction, start: int, stop: int) -> Tensor:
        """See :meth:`Relevance.block`."""
        return (self._matrix if direction == "a2t" else self._matrix.T)[start:stop]

    def counts(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Relevance.counts`."""
        # In blocks, since summing a bool matrix at once makes an int64 copy of it.
        of_clip, of_caption = (
            torch.cat([block.sum(dim=1) for block in torch.split(matrix, 256)])
            for matrix in (self._matrix, self._matrix.T)
        )
        return of_clip, of_caption


class CaptionRelevance:
    """A caption is relevant to the clip it describes; with ids, equal captions share their clips.

    Args:
        caption_to_audio: ``[C]`` integers in ``[0, clips)``.
        clips: A, the number of clips.
        caption_ids: ``[C]`` integers, equal where captions have the same text. A clip is then
            relevant to every caption with the id of one of its own.

    Raises:
        ValueError: when one of them is not of integers ``[C]``, an index is out of range or the
            lengths differ.
    """

    def __init__(
        self, caption_to_audio: Tensor, clips: int, *, caption_ids: Tensor | None = None
    ) -> None:
        _check_integers("caption_to_audio", caption_to_audio)
        n = len(caption_to_audio)
        if n and not 0 <= int(caption_to_audio.min()) <= int(caption_to_audio.max()) < clips:
            raise ValueError(
                f"caption_to_audio must hold indices of the {clips} clips, 0 to A - 1."
            )
        if caption_ids is None:
            # Each caption is a text of its own.
            self._text = torch.arange(n, device=caption_to_audio.device)
        else:
            _check_integers("caption_ids", caption_ids)
            if len(caption_ids) != n:
                raise ValueError(
                    f"caption_to_audio has {n} captions, caption_ids {len(caption_ids)}."
                )
            self._text = torch.unique(caption_ids, return_inverse=True)[1]
            self._text = self._text.to(caption_to_audio.device)
        self._owner = caption_to_audio.long()
        self._clips = clips

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        return self._clips, len(self._owner)

    def block(self, direction: Direction, start: int, stop: int) -> Tensor:
        """See :meth:`Relevance.block`."""
        if direction == "a2t":
            return self._captions_of(start, min(stop, self._clips))
        return self._clips_of(start, stop)

    def _captions_of(self, start: int, stop: int) -> Tensor:
        own = (self._owner >= start) & (self._owner < stop)
        has_text = self._zeros(stop - start, len(self._owner))
        has_text[self._owner[own] - start, self._text[own]] = True
        return has_text[:, self._text]

    def _clips_of(self, start: int, stop: int) -> Tensor:
        texts, row = torch.unique(self._text[start:stop], return_inverse=True)
        place = torch.searchsorted(texts, self._text).clamp_max(len(texts) - 1)
        same = texts[place] == self._text
        has_clip = self._zeros(len(texts), self._clips)
        has_clip[place[same], self._owner[same]] = True
        return has_clip[row]

    def counts(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Relevance.counts`."""
        # Captions of a text times the texts of a clip, each pair of text and clip once.
        pairs = torch.unique(torch.stack([self._text, self._owner]), dim=1)
        texts = int(self._text.max()) + 1 if len(self._text) else 0
        captions = torch.bincount(self._text, minlength=texts)
        of_clip = torch.zeros(self._clips, dtype=torch.int64, device=self._owner.device)
        of_clip.index_add_(0, pairs[1], captions[pairs[0]])
        return of_clip, torch.bincount(pairs[0], minlength=texts)[self._text]

    def _zeros(self, rows: int, columns: int) -> Tensor:
        return torch.zeros(rows, columns, dtype=torch.bool, device=self._owner.device)


def _check_integers(name: str, values: Tensor) -> None:
    kind = values.dtype
    if values.dim() != 1 or kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise ValueError(f"{name} must hold integers [C], got {kind} {list(values.shape)}.")
