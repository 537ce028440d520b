"""The clips and captions of a split that retrieve each other, and which are relevant to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import normalize_caption

RelevanceMode = Literal["clip", "label"]


@dataclass(frozen=True)
class RetrievalSet:
    """The A clips and C captions of one split that retrieve each other, and which are relevant.

    Attributes:
        clips: the A clips, in the split's order.
        captions: the C caption texts.
        caption_ids: ``[C]`` int64.
        caption_to_audio: ``[C]`` int64, the one clip of each caption; ``None`` in ``"label"`` mode,
            where a caption has several.
        label_relevance: :attr:`relevance` in ``"label"`` mode; ``None`` in ``"clip"`` mode.
    """

    clips: list[Clip]
    captions: list[str]
    caption_ids: Tensor
    caption_to_audio: Tensor | None = None
    label_relevance: Tensor | None = None

    @cached_property
    def relevance(self) -> Tensor:
        """``[A, C]`` bool, ``True`` where clip and caption are relevant to each other.

        It is made on first use: for 50,000 clips with five captions each it takes 12.5 GB.
        """
        if self.label_relevance is not None:
            return self.label_relevance
        assert self.caption_to_audio is not None
        return torch.arange(len(self.clips))[:, None] == self.caption_to_audio[None, :]


def make_retrieval_set(clips: Sequence[Clip], mode: RelevanceMode, name: str) -> RetrievalSet:
    """Clips, captions and relevance, as ``AudioTextDataset.retrieval_set`` says.

    Raises:
        InputError: if there is no such mode, or a clip lacks the label it takes; the message on it
            begins with the data set's ``name``.
    """
    if mode == "clip":
        return _by_clip(clips)
    if mode == "label":
        return _by_label(clips, name)
    raise InputError(f"relevance mode must be 'clip' or 'label', not {mode!r}")


def _by_clip(clips: Sequence[Clip]) -> RetrievalSet:
    """Every caption row is a column, relevant to its own clip alone."""
    owner = torch.tensor([row for row, clip in enumerate(clips) for _ in clip.captions])
    return RetrievalSet(
        clips=list(clips),
        captions=[text for clip in clips for text in clip.captions],
        caption_ids=torch.tensor([item for clip in clips for item in clip.caption_ids]),
        caption_to_audio=owner,
    )


def _by_label(clips: Sequence[Clip], name: str) -> RetrievalSet:
    """Every distinct caption text is a column, relevant to all clips whose label it is said of.

    Raises:
        InputError: if a clip has no label; the message begins with the data set's ``name``.
    """
    texts: dict[str, str] = {}
    ids: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    clip_labels: list[str] = []
    for clip in clips:
        if clip.label is None:
            raise InputError(
                f"{name}: clip {clip.key!r} has no label; use relevance mode 'clip' instead"
            )
        clip_labels.append(clip.label)
        for text, item in zip(clip.captions, clip.caption_ids, strict=True):
            key = normalize_caption(text)
            texts.setdefault(key, text)
            ids.setdefault(key, item)
            labels.setdefault(key, set()).add(clip.label)
    rows = [[label in labels[key] for key in texts] for label in clip_labels]
    return RetrievalSet(
        clips=list(clips),
        captions=list(texts.values()),
        caption_ids=torch.tensor(list(ids.values()), dtype=torch.int64),
        label_relevance=torch.tensor(rows, dtype=torch.bool),
    )
