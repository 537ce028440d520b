"""A training batch of (clip, caption) pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from atr_moco_plugin.tensors.internals import empty_shared

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Captions to ``(input_ids [B, L] int64, mask [B, L] bool, True = valid)``."""

NO_ITEM = -1
"""In the place of the second id of a clip that is no mixture."""


class Example(NamedTuple):
    """One (clip, caption) pair, decoded and cropped.

    Attributes:
        waveform: ``[samples]`` float32 mono at the data set's rate.
        caption: the caption's text.
        clip_id: see :func:`atr_moco_plugin.ids.clip_id`.
        caption_id: see :func:`atr_moco_plugin.ids.caption_id`.
        second: ids of the clip that is mixed in and of its caption; ``None`` for no mixture.
        outputs: what stands in for the clip, the caption or both, see
            :class:`~atr_moco_plugin.data.loading.outputs.Outputs`; ``None`` for nothing.
    """

    waveform: NDArray[np.float32]
    caption: str
    clip_id: int
    caption_id: int
    outputs: Any = None
    second: tuple[int, int] | None = None


@dataclass
class PairBatch:
    """B pairs of a clip and a caption.

    Attributes:
        waveforms: ``[B, samples]`` float32 mono, zeros after each clip's end.
        lengths: ``[B]`` int64, samples of each clip, always on the CPU: they decide shapes, such as
            the number of tokens, and the host would have to wait for a GPU to tell.
        input_ids: ``[B, L]`` int64 caption tokens.
        text_mask: ``[B, L]`` bool, ``True`` for a caption's token, ``False`` for padding.
        clip_ids: ``[B]`` int64; ``[B, 2]`` where clips are mixed, with -1 for the second of a clip
            that is not.
        caption_ids: of the same shape.
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
        return len(self.clip_ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> None:
        """Move every tensor but ``lengths`` to ``device``, in place (fairseq2's
        ``SupportsDeviceTransfer``)."""
        for field in fields(self):
            tensor: Tensor | None = getattr(self, field.name)
            if field.name != "lengths" and tensor is not None:
                setattr(self, field.name, tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Copy every tensor to page-locked memory, in place; returns this batch."""
        for field in fields(self):
            tensor: Tensor | None = getattr(self, field.name)
            if tensor is not None:
                setattr(self, field.name, tensor.pin_memory())
        return self


@dataclass
class SharedClipsBatch(PairBatch):
    """B pairs of C clips, each with several captions. ``waveforms`` and ``lengths`` have C rows.

    Attributes:
        rows: ``[B]`` int64, the clip of each pair.
    """

    rows: Tensor

    @property
    def audio(self) -> dict[str, Tensor]:
        """Arguments of the audio tower, which encodes each clip once."""
        return {**super().audio, "rows": self.rows}


def pad_waveforms(waveforms: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Stack waveforms ``[n_i]`` with zeros after each.

    Returns:
        ``[B, max n_i]`` float32 and lengths ``[B]`` int64.

    Raises:
        ValueError: if there is no waveform.
    """
    if not waveforms:
        raise ValueError("a batch needs at least one waveform")
    lengths = [len(waveform) for waveform in waveforms]
    # In a worker, in the shared memory where it will be read: torch would copy it there.
    make = torch.empty if get_worker_info() is None else empty_shared
    padded = make(len(waveforms), max(lengths))
    for row, waveform in zip(padded, waveforms, strict=True):
        # A copy only if a reader of one's own returned an array that torch does not take.
        row[: len(waveform)] = torch.from_numpy(np.require(waveform, np.float32, ["C", "W"]))
        row[len(waveform) :] = 0
    return padded, torch.tensor(lengths, dtype=torch.int64)


def collate(
    examples: Sequence[Example],
    tokenize: Tokenize,
    *,
    captions_per_clip: int = 1,
    mixed: bool = False,
) -> PairBatch:
    """Make a batch of decoded pairs.

    Args:
        examples: B pairs, B at least 1.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.
        captions_per_clip: pairs of each clip, which follow each other; the clip is in the batch
            once.
        mixed: give every pair two ids, also where none of this batch is a mixture: batches of all
            processes have one form.

    Raises:
        ValueError: if there is no example, or ``tokenize`` returns tensors of another shape.
    """
    clips = examples[::captions_per_clip]
    waveforms, lengths = pad_waveforms([example.waveform for example in clips])
    input_ids, text_mask = tokenize([example.caption for example in examples])
    shape = input_ids.shape
    if input_ids.ndim != 2 or shape != text_mask.shape or len(input_ids) != len(examples):
        raise ValueError(
            f"tokenize must return ids and mask of one shape [{len(examples)}, L], not "
            f"{list(shape)} and {list(text_mask.shape)}"
        )
    ids = torch.tensor([(x.clip_id, x.caption_id) for x in examples])
    if mixed:
        second = torch.tensor([x.second or (NO_ITEM, NO_ITEM) for x in examples])
        ids = torch.stack([ids, second], dim=-1)
    batch = PairBatch(
        waveforms=waveforms,
        lengths=lengths,
        input_ids=input_ids.to(torch.int64),
        text_mask=text_mask.to(torch.bool),
        clip_ids=ids[:, 0].contiguous(),
        caption_ids=ids[:, 1].contiguous(),
    )
    if captions_per_clip == 1:
        return batch
    return SharedClipsBatch(**vars(batch), rows=torch.arange(len(examples)) // captions_per_clip)
