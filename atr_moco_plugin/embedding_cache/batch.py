"""Training batches whose clips, captions or both enter their towers at a later stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.embedding_cache.outputs import Output
from atr_moco_plugin.embedding_cache.store import OutputStore
from atr_moco_plugin.tokens import AudioTokens, TextTokens, valid_first


@dataclass
class CachedPairBatch(PairBatch):
    """B pairs of a clip and a caption, of which one or both are outputs of frozen encoders.

    Where clips are, ``waveforms`` is ``[B, 0]``.

    Attributes:
        clip_pooled: ``[B, width]`` float32 or ``None``.
        clip_states: ``[B, T, width]`` float16, zeros after each clip's tokens, or ``None``.
        clip_mask: ``[B, T]`` bool, ``True`` = valid, or ``None``.
        caption_pooled: ``[B, width]`` float32 or ``None``.
        caption_states: ``[B, L, width]`` float16 for ``input_ids``, or ``None``.
    """

    clip_pooled: Tensor | None = None
    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    caption_pooled: Tensor | None = None
    caption_states: Tensor | None = None

    @property
    def audio(self) -> dict[str, Any]:
        """Arguments of the audio tower."""
        inputs: dict[str, Any] = dict(super().audio)
        if self.clip_pooled is None and self.clip_states is None:
            return inputs
        del inputs["waveforms"], inputs["lengths"]
        if self.clip_states is not None:
            assert self.clip_mask is not None
            inputs["tokens"] = AudioTokens(self.clip_states, self.clip_mask)
        if self.clip_pooled is not None:
            inputs["pooled"] = self.clip_pooled
        return inputs

    @property
    def text(self) -> dict[str, Any]:
        """Arguments of the text tower."""
        inputs: dict[str, Any] = dict(super().text)
        if self.caption_pooled is None and self.caption_states is None:
            return inputs
        del inputs["input_ids"], inputs["mask"]
        inputs["tokens"] = TextTokens(self.caption_states, self.text_mask, self.input_ids)
        if self.caption_pooled is not None:
            inputs["pooled"] = self.caption_pooled
        return inputs


class Read(NamedTuple):
    """What the caches have of one pair.

    Attributes:
        clip: ``None`` where clips are not cached.
        caption: ``None`` where captions are not cached.
    """

    clip: Output | None
    caption: Output | None


@dataclass(frozen=True)
class CachedOutputs:
    """Outputs of frozen towers that take the place of a loader's clips, captions or both.

    An implementation of :class:`~atr_moco_plugin.data.loading.outputs.Outputs`.

    Attributes:
        clips: by key; ``None`` where the audio tower is not frozen.
        captions: by text; ``None`` where the text tower is not frozen.
    """

    clips: OutputStore | None
    captions: OutputStore | None

    @property
    def crops(self) -> int | None:
        """Crops of each clip; ``None`` where clips are read as they are."""
        return None if self.clips is None else self.clips.index.crops

    def lengths(self) -> NDArray[np.int64] | None:
        """``[clips]``, tokens of each clip in the split's order; ``None`` where a clip is one
        vector."""
        if self.clips is None or not self.clips.needed.tokens:
            return None
        return self.clips.lengths()

    def read(self, key: str, caption: str, crop: int) -> Read:
        """What there is of a pair.

        Args:
            key: of the clip.
            caption: its text.
            crop: which of the clip's crops.

        Raises:
            InputError: if the clip could not be read when its outputs were written.
        """
        return Read(
            None if self.clips is None else self.clips.get(key, crop),
            None if self.captions is None else self.captions.get(caption),
        )

    def fill(self, batch: PairBatch, pairs: Sequence[Read]) -> PairBatch:
        """A batch with the outputs of its pairs.

        Args:
            batch: B pairs; where clips are cached their waveforms are empty.
            pairs: what :meth:`read` gave for each.
        """
        own = {field.name: getattr(batch, field.name) for field in fields(batch)}
        filled = CachedPairBatch(**own)
        if self.clips is not None:
            clips = [pair.clip for pair in pairs if pair.clip is not None]
            filled.clip_pooled, filled.clip_states, filled.clip_mask = stack(clips)
        if self.captions is not None:
            captions = [pair.caption for pair in pairs if pair.caption is not None]
            length = batch.input_ids.size(1)
            filled.caption_pooled, filled.caption_states, mask = stack(captions, length)
            if mask is not None and not torch.equal(mask, batch.text_mask):
                raise ValueError("cached captions have other tokens than the tokenizer gives")
        return filled


def stack(
    outputs: Sequence[Output], length: int | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Outputs of B items as tensors.

    Args:
        outputs: all with the same parts.
        length: tokens of each row, ``None`` for those of the longest.

    Returns:
        ``[B, width]`` float32, ``[B, length, width]`` float16 with zeros after each item's tokens,
        and their mask ``[B, length]`` bool; ``None`` for parts that are not kept.
    """
    pooled = [x.pooled for x in outputs if x.pooled is not None]
    vectors = torch.stack([torch.from_numpy(x) for x in pooled]) if pooled else None
    states = [x.states for x in outputs if x.states is not None]
    if not states:
        return vectors, None, None
    counts = torch.tensor([len(x) for x in states])
    padded = torch.zeros(
        len(states), length or int(counts.max()), states[0].shape[1], dtype=torch.float16
    )
    for row, own in zip(padded, states, strict=True):
        row[: len(own)] = torch.from_numpy(own)
    return vectors, padded, valid_first(counts, padded.size(1))
