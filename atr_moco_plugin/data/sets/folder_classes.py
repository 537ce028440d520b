"""The classes of a folder of sounds: sub-folders, or captions that many clips share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.ids import normalize_caption


def with_classes(
    splits: Mapping[str, Sequence[Clip]], labels: Mapping[str, str], name: str
) -> dict[str, Sequence[Clip]]:
    """With the class of each clip. Without ``labels`` that is its caption, where clips have one
    each and half of them share theirs with others."""
    if labels:
        return {
            split: [
                replace(clip, label=labels[clip.key], caption_group=f"{name}/{labels[clip.key]}")
                for clip in its
            ]
            for split, its in splits.items()
        }
    clips = [clip for its in splits.values() for clip in its]
    if _with_several(clips) or not _are_shared(clips):
        return dict(splits)
    return {
        split: [replace(clip, label=normalize_caption(clip.captions[0])) for clip in its]
        for split, its in splits.items()
    }


def warn_of_lost_classes(clips: Sequence[Clip], name: str) -> None:
    """Warn where clips share captions as classes are shared, and some have several."""
    if None not in {clip.label for clip in clips}:
        return
    several = _with_several(clips)
    if several and _are_shared(clips):
        shown = ", ".join(dict.fromkeys(several[0].captions))
        warnings.warn(
            f"{name}: {len(several):,} of {len(clips):,} clips have several labels or captions "
            f"(such as {several[0].key}: {shown[:200]}), so that captions that clips share are no "
            "classes: each clip is evaluated alone, and where splits are drawn, a class may be "
            "missing from one; give each clip one label",
            stacklevel=4,
        )


def _with_several(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if len(set(map(normalize_caption, clip.captions))) > 1]


def _are_shared(clips: Sequence[Clip]) -> bool:
    """Whether there are at most half as many captions as clips."""
    return 2 * len({normalize_caption(x) for clip in clips for x in clip.captions}) <= len(clips)
