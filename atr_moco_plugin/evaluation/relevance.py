"""Which clips and captions belong together, a block of queries at a time."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Relevance(Protocol):
    """A relevance of A clips and C captions.

    A block of a matrix ``[A, C]`` is made when it is asked for, so that the matrix need not exist.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        ...

    def captions_of(self, start: int, stop: int) -> Tensor:
        """``[n, C]`` bool: the captions of the clips ``start`` to ``stop``."""
        ...

    def clips_of(self, start: int, stop: int) -> Tensor:
        """``[n, A]`` bool: the clips of the captions ``start`` to ``stop``."""
        ...

    def counts(self) -> tuple[Tensor, Tensor]:
        """``[A]`` captions of each clip and ``[C]`` clips of each caption, int64."""
        ...


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
                f"A relevance is a bool matrix [A, C], got {matrix.dtype} {list(matrix.shape)}."
            )
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        clips, captions = self._matrix.shape
        return clips, captions

    def captions_of(self, start: int, stop: int) -> Tensor:
        """``[n, C]`` bool: the captions of the clips ``start`` to ``stop``."""
        return self._matrix[start:stop]

    def clips_of(self, start: int, stop: int) -> Tensor:
        """``[n, A]`` bool: the clips of the captions ``start`` to ``stop``."""
        return self._matrix[:, start:stop].T

    def counts(self) -> tuple[Tensor, Tensor]:
        """``[A]`` captions of each clip and ``[C]`` clips of each caption, int64."""
        # In blocks, since summing a bool matrix at once makes an int64 copy of it.
        captions = torch.cat([block.sum(dim=1) for block in self._matrix.split(256)])
        clips = torch.cat([block.sum(dim=0) for block in self._matrix.split(256, dim=1)])
        return captions, clips


class CaptionRelevance:
    """Every caption belongs to the clip it describes, and with ids to those of an equal text too.

    Args:
        caption_to_audio: ``[C]`` integers in ``[0, clips)``.
        clips: A, the number of clips.
        caption_ids: ``[C]`` integers; with it a clip also belongs to every caption that has the
            id of one of its own.

    Raises:
        ValueError: when an index is out of range or the lengths differ.
    """

    def __init__(
        self, caption_to_audio: Tensor, clips: int, *, caption_ids: Tensor | None = None
    ) -> None:
        n = len(caption_to_audio)
        if n and not 0 <= int(caption_to_audio.min()) <= int(caption_to_audio.max()) < clips:
            raise ValueError(
                f"caption_to_audio must hold indices of the {clips} clips, 0 to A - 1."
            )
        if caption_ids is None:
            # Each caption is a text of its own.
            self._text = torch.arange(n, device=caption_to_audio.device)
        elif len(caption_ids) != n:
            raise ValueError(f"caption_to_audio has {n} captions, caption_ids {len(caption_ids)}.")
        else:
            self._text = torch.unique(caption_ids, return_inverse=True)[1]
            self._text = self._text.to(caption_to_audio.device)
        self._owner = caption_to_audio.long()
        self._clips = clips

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        return self._clips, len(self._owner)

    def captions_of(self, start: int, stop: int) -> Tensor:
        """``[n, C]`` bool: the captions of the clips ``start`` to ``stop``."""
        own = (self._owner >= start) & (self._owner < stop)
        has_text = self._zeros(min(stop, self._clips) - start, len(self._owner))
        has_text[self._owner[own] - start, self._text[own]] = True
        return has_text[:, self._text]

    def clips_of(self, start: int, stop: int) -> Tensor:
        """``[n, A]`` bool: the clips of the captions ``start`` to ``stop``."""
        texts, row = torch.unique(self._text[start:stop], return_inverse=True)
        place = torch.searchsorted(texts, self._text).clamp_max(len(texts) - 1)
        same = texts[place] == self._text
        has_clip = self._zeros(len(texts), self._clips)
        has_clip[place[same], self._owner[same]] = True
        return has_clip[row]

    def counts(self) -> tuple[Tensor, Tensor]:
        """``[A]`` captions of each clip and ``[C]`` clips of each caption, int64."""
        # Captions of a text times the texts of a clip, each pair of text and clip once.
        pairs = torch.unique(torch.stack([self._text, self._owner]), dim=1)
        texts = int(self._text.max()) + 1 if len(self._text) else 0
        captions = torch.bincount(self._text, minlength=texts)
        of_clip = torch.zeros(self._clips, dtype=torch.int64, device=self._owner.device)
        of_clip.index_add_(0, pairs[1], captions[pairs[0]])
        return of_clip, torch.bincount(pairs[0], minlength=texts)[self._text]

    def _zeros(self, rows: int, columns: int) -> Tensor:
        return torch.zeros(rows, columns, dtype=torch.bool, device=self._owner.device)
