"""A training batch of (clip, caption) pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from atr_moco_plugin.tensors.internals import empty_shared

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Captions to ``(input_ids [B, L] int64, mask [B, L] bool, True = valid)``."""


class Example(NamedTuple):
    """One (clip, caption) pair, decoded and cropped.

    Attributes:
        waveform: ``[samples]`` float32 mono at the data set's rate.
        caption: the caption's text.
        clip_id: see :func:`atr_moco_plugin.ids.clip_id`.
        caption_id: see :func:`atr_moco_plugin.ids.caption_id`.
    """

    waveform: NDArray[np.float32]
    caption: str
    clip_id: int
    caption_id: int


@dataclass
class PairBatch:
    """B pairs of a clip and a caption.

    Attributes:
        waveforms: ``[B, samples]`` float32 mono, zeros after each clip's end.
        lengths: ``[B]`` int64, samples of each clip, always on the CPU: what is made of them, such
            as the number of tokens, decides shapes, for which the host would wait.
        input_ids: ``[B, L]`` int64 caption tokens.
        text_mask: ``[B, L]`` bool, ``True`` where a token is of the caption and not padding.
        clip_ids: ``[B]`` int64.
        caption_ids: ``[B]`` int64.
    """

    waveforms: Tensor
    lengths: Tensor
    input_ids: Tensor
    text_mask: Tensor
    clip_ids: Tensor
    caption_ids: Tensor

    @property
    def audio(self) -> dict[str, Tensor]:
        """Arguments of the audio tower."""
        return {"waveforms": self.waveforms, "lengths": self.lengths}

    @property
    def text(self) -> dict[str, Tensor]:
        """Arguments of the text tower."""
        return {"input_ids": self.input_ids, "mask": self.text_mask}

    def __len__(self) -> int:
        """Number of pairs, B."""
        return self.waveforms.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> None:
        """Move every tensor but ``lengths`` to ``device``, in place (fairseq2's
        ``SupportsDeviceTransfer``)."""
        for field in fields(self):
            if field.name != "lengths":
                tensor: Tensor = getattr(self, field.name)
                setattr(self, field.name, tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Copy every tensor to page-locked memory, in place; returns this batch."""
        for field in fields(self):
            tensor: Tensor = getattr(self, field.name)
            setattr(self, field.name, tensor.pin_memory())
        return self


class WaveformRows:
    """Waveforms that become the rows of one batch, each copied as soon as it is there.

    So a decoder's memory is used again for the next clip, where a list of decoded clips takes fresh
    pages from the system for every batch, which costs as much as copying them several times.

    Args:
        rows: most waveforms, B.
        samples: of the longest that may come. What is not written takes no memory.
    """

    def __init__(self, rows: int, samples: int) -> None:
        self._rows = _empty(rows, samples)
        self._lengths: list[int] = []

    def add(self, waveform: NDArray[np.float32]) -> None:
        """Copy ``[n]`` into the next row."""
        row = self._rows[len(self._lengths)]
        # A copy only where a reader of one's own returned what torch does not take.
        row[: len(waveform)] = torch.from_numpy(np.require(waveform, np.float32, "CW"))
        self._lengths.append(len(waveform))

    def padded(self) -> tuple[Tensor, Tensor]:
        """Those added, with zeros after each.

        Returns:
            ``[B, max n_i]`` float32 and lengths ``[B]`` int64.

        Raises:
            ValueError: if none was added.
        """
        if not self._lengths:
            raise ValueError("a batch needs at least one waveform")
        longest, rows = max(self._lengths), self._rows[: len(self._lengths)]
        if longest < rows.size(1):
            rows = _empty(len(rows), longest).copy_(rows[:, :longest])
        for row, length in zip(rows, self._lengths, strict=True):
            row[length:] = 0
        return rows, torch.tensor(self._lengths, dtype=torch.int64)


def _empty(rows: int, samples: int) -> Tensor:
    """``[rows, samples]`` float32; in a loader's worker in the shared memory where it will be read,
    into which torch would copy it."""
    if get_worker_info() is None:
        return torch.empty(rows, samples)
    return empty_shared(rows, samples)


def pad_waveforms(waveforms: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Stack waveforms ``[n_i]`` with zeros after each.

    Returns:
        ``[B, max n_i]`` float32 and lengths ``[B]`` int64.

    Raises:
        ValueError: if there is no waveform.
    """
    rows = WaveformRows(len(waveforms), max(map(len, waveforms), default=0))
    for waveform in waveforms:
        rows.add(waveform)
    return rows.padded()


class UnfinishedBatch:
    """A batch that takes its pairs one by one.

    Args:
        pairs: most pairs.
        samples: of the longest clip that may come.
    """

    def __init__(self, pairs: int, samples: int) -> None:
        self._waveforms = WaveformRows(pairs, samples)
        self._captions: list[str] = []
        self._ids: list[tuple[int, int]] = []

    def add(self, example: Example) -> None:
        """Take one more pair."""
        self._waveforms.add(example.waveform)
        self._captions.append(example.caption)
        self._ids.append((example.clip_id, example.caption_id))

    def finish(self, tokenize: Tokenize) -> PairBatch:
        """The batch of the pairs taken.

        Args:
            tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.

        Raises:
            ValueError: if there is no pair, or ``tokenize`` returns tensors of another shape.
        """
        waveforms, lengths = self._waveforms.padded()
        input_ids, text_mask = tokenize(self._captions)
        pairs = len(self._captions)
        if input_ids.ndim != 2 or input_ids.shape != text_mask.shape or len(input_ids) != pairs:
            raise ValueError(
                f"tokenize must return ids and mask of one shape [{pairs}, L], not "
                f"{list(input_ids.shape)} and {list(text_mask.shape)}"
            )
        clip_ids, caption_ids = torch.tensor(self._ids, dtype=torch.int64).T.contiguous()
        return PairBatch(
            waveforms=waveforms,
            lengths=lengths,
            input_ids=input_ids.to(torch.int64),
            text_mask=text_mask.to(torch.bool),
            clip_ids=clip_ids,
            caption_ids=caption_ids,
        )


def collate(examples: Sequence[Example], tokenize: Tokenize) -> PairBatch:
    """Make a batch of decoded pairs.

    Args:
        examples: B pairs, B at least 1.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.

    Raises:
        ValueError: if there is no example, or ``tokenize`` returns tensors of another shape.
    """
    longest = max((len(example.waveform) for example in examples), default=0)
    batch = UnfinishedBatch(len(examples), longest)
    for example in examples:
        batch.add(example)
    return batch.finish(tokenize)
