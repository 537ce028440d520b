"""A training batch of (clip, caption) pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Captions to ``(input_ids [B, L] int64, mask [B, L] bool, True = valid)``."""


class Example(NamedTuple):
    """One (clip, caption) pair, decoded and cropped.

    Attributes:
        waveform: ``[samples]`` float32, 16 kHz mono.
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
        waveforms: ``[B, samples]`` float32, 16 kHz mono, zeros after each clip's end.
        lengths: ``[B]`` int64, samples of each clip.
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
        """Move every tensor to ``device``, in place (fairseq2's ``SupportsDeviceTransfer``)."""
        for field in fields(self):
            tensor: Tensor = getattr(self, field.name)
            setattr(self, field.name, tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Copy every tensor to page-locked memory, in place; returns this batch."""
        for field in fields(self):
            tensor: Tensor = getattr(self, field.name)
            setattr(self, field.name, tensor.pin_memory())
        return self


def pad_waveforms(waveforms: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Stack waveforms ``[n_i]`` with zeros after each.

    Returns:
        ``[B, max n_i]`` float32 and lengths ``[B]`` int64.

    Raises:
        ValueError: if there is no waveform.
    """
    if not waveforms:
        raise ValueError("a batch needs at least one waveform")
    lengths = torch.tensor([waveform.shape[0] for waveform in waveforms], dtype=torch.int64)
    longest = int(lengths.max())
    # A copy only where a reader of one's own returned what torch does not take.
    rows = (torch.from_numpy(np.require(x, np.float32, "CW")) for x in waveforms)
    # Made where it will be read: in a worker that is shared memory, into which torch would copy it.
    padded: Tensor = default_collate(
        [x if len(x) == longest else F.pad(x, (0, longest - len(x))) for x in rows]
    )
    return padded, lengths


def collate(examples: Sequence[Example], tokenize: Tokenize) -> PairBatch:
    """Make a batch of decoded pairs.

    Args:
        examples: B pairs, B at least 1.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.

    Raises:
        ValueError: if there is no example, or ``tokenize`` returns tensors of another shape.
    """
    waveforms, lengths = pad_waveforms([example.waveform for example in examples])
    input_ids, text_mask = tokenize([example.caption for example in examples])
    if input_ids.ndim != 2 or input_ids.shape != text_mask.shape or len(input_ids) != len(examples):
        raise ValueError(
            f"tokenize must return ids and mask of one shape [{len(examples)}, L], not "
            f"{list(input_ids.shape)} and {list(text_mask.shape)}"
        )
    return PairBatch(
        waveforms=waveforms,
        lengths=lengths,
        input_ids=input_ids.to(torch.int64),
        text_mask=text_mask.to(torch.bool),
        clip_ids=torch.tensor([example.clip_id for example in examples], dtype=torch.int64),
        caption_ids=torch.tensor([example.caption_id for example in examples], dtype=torch.int64),
    )
