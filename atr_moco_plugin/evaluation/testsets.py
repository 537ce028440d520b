"""Names for the evaluation sets of the field, of which some are in use in several sizes."""

from __future__ import annotations

AUDIOCAPS_TEST_CLIPS = (883, 957, 975)
"""Clips of the AudioCaps test sets in use: the official list has 975, and clips have gone since."""


def test_set_name(dataset: str, split: str, clips: int) -> str:
    """What was evaluated, so that figures on different sets are not mistaken for each other.

    Args:
        dataset: the data set's name.
        split: the split's name.
        clips: number of clips in it.

    Example:
        >>> test_set_name("audiocaps", "test", 957)
        'AudioCaps test, 957-clip version'
        >>> test_set_name("audiocaps", "test", 960)
        'AudioCaps test, 960 clips (none of the versions in use, which have 883, 957 and 975)'
        >>> test_set_name("clotho", "valid", 1045)
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


# Its name begins like a test's, but it is none, wherever a test imports it.
test_set_name.__test__ = False
