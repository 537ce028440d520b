"""Names of evaluation sets, some of which the field uses in several sizes."""

from __future__ import annotations

AUDIOCAPS_TEST_CLIPS = (883, 957, 975)
"""Clips of the AudioCaps test sets in use: the official list has 975, and some are gone by now."""


def evaluation_set_name(dataset: str, split: str, clips: int) -> str:
    """Name an evaluation set so that nobody compares figures of sets that differ in their clips.

    Args:
        dataset: the data set's name.
        split: the split's name.
        clips: number of clips in it.

    Example:
        >>> evaluation_set_name("audiocaps", "test", 957)
        'AudioCaps test, 957-clip version'
        >>> evaluation_set_name("audiocaps", "test", 960)
        'AudioCaps test, 960 clips (none of the versions in use, which have 883, 957 and 975)'
        >>> evaluation_set_name("clotho", "valid", 1045)
        'clotho valid'
    """
    if dataset.lower() != "audiocaps" or split != "test":
        return f"{dataset} {split}"
    if clips in AUDIOCAPS_TEST_CLIPS:
        return f"AudioCaps test, {clips}-clip version"
    *others, last = AUDIOCAPS_TEST_CLIPS
    return (
        f"AudioCaps test, {clips:,} clips (none of the versions in use, which have "
        f"{', '.join(map(str, others))} and {last})"
    )
