"""What a user knows a clip by, from the id that a batch has of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from atr_moco_plugin.safety.finite import NameClips


class NamesClips(Protocol):
    """What is asked of a data set, as :class:`~atr_moco_plugin.data.dataset.AudioTextDataset`."""

    def clips(self, split: str) -> Iterable[Any]:
        """The clips of a split, each with a ``key``."""
        ...

    def clip_id(self, clip: Any) -> int:
        """The id of a clip."""
        ...


def name_clips_of(dataset: NamesClips, split: str) -> NameClips:
    """Clip ids to the keys of a split. Ids are digests, so the split is gone through when a name is
    asked for, and not before.

    Args:
        dataset: the data set.
        split: its split that is trained on.
    """

    def names(ids: Sequence[int]) -> Mapping[int, str]:
        wanted = set(ids)
        with_ids = ((dataset.clip_id(clip), clip.key) for clip in dataset.clips(split))
        return {number: repr(key) for number, key in with_ids if number in wanted}

    return names
