"""Clips in which nothing is to be heard, found before training."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from atr_moco_plugin.data.audio.silence import is_silent
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError, listed

_THREADS = 8


def silent_clips(data: AudioTextDataset, split: str) -> list[str]:
    """Keys of the clips of a split that are silent from their beginning to their end.

    One second of each is decoded, and all of those whose first second is silent. Clips that cannot
    be read are passed over, as they are told of elsewhere; so are those that are rendered.
    """
    if data.read is not None:
        return []
    clips: Sequence[Clip] = data.splits.get(split, [])
    with ThreadPoolExecutor(_THREADS) as pool:
        return [
            clip.key for clip, silent in zip(clips, pool.map(_silent, clips), strict=True) if silent
        ]


def silence_notes(data: AudioTextDataset, splits: Sequence[str]) -> list[str]:
    """A sentence for each split with silent clips.

    Args:
        data: the open data set.
        splits: their names; the first one is trained on.

    Raises:
        InputError: where all clips of a split are silent.
    """
    notes = []
    for split in splits:
        silent = silent_clips(data, split)
        if not silent:
            continue
        number = len(data.clips(split))
        if len(silent) == number:
            raise InputError(
                f"All {number:,} clips of {data.name} {split} are silent ({listed(silent)}): "
                "nothing is to be heard in them, give other files."
            )
        notes.append(
            f"{len(silent):,} of {number:,} clips of {split} "
            f"{'is' if len(silent) == 1 else 'are'} silent ({listed(silent)}): leave "
            f"{'it' if len(silent) == 1 else 'them'} out, or a caption is learned for silence."
        )
    return notes


def _silent(clip: Clip) -> bool:
    try:
        return is_silent(clip.source)
    except (InputError, OSError):
        return False
