"""What opening a data set counted, and the one line that says it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from atr_moco_plugin.data.clips import Clip


@dataclass(frozen=True)
class Counts:
    """What opening one split found besides its clips.

    Attributes:
        seconds: duration of the clips; ``None`` if unknown.
        missing: clips left out because their audio was not found.
        unreadable: clips left out because their file is empty, broken or too short.
        no_caption: clips left out because none of their captions has words in it.
        empty_captions: captions without words, whether their clip was kept or not.
        repeated_rows: rows equal to an earlier one, dropped.
        shared_audio: clips whose recording is in another split as well.
        same_audio: clips whose recording is an earlier clip of the split as well.
        excluded: clips that the list of ``exclude`` leaves out.
    """

    seconds: float | None = None
    missing: int = 0
    unreadable: int = 0
    no_caption: int = 0
    empty_captions: int = 0
    repeated_rows: int = 0
    shared_audio: int = 0
    same_audio: int = 0
    excluded: int = 0


NO_SPLIT = ""
"""In place of a split, for the counts of clips that were lost before splits were drawn."""

_LOW_RATE = 0.9
"""Share of a model's sampling rate below which upper bands are called empty: for a model of 48 kHz,
audio of 44.1 kHz loses nothing to speak of."""

_NOTES = {
    "unreadable": "unreadable clips left out",
    "no_caption": "clips without a caption left out",
    "empty_captions": "empty captions dropped",
    "repeated_rows": "repeated rows dropped",
    "shared_audio": "clips with audio that another split has",
    "same_audio": "clips with audio that another clip of the split has",
    "excluded": "clips left out by the list of exclude",
}


def total_seconds(counts: Iterable[Counts]) -> float | None:
    """Duration of all splits together; ``None`` if no split knows its own."""
    known = [count.seconds for count in counts if count.seconds is not None]
    return sum(known) if known else None


def shared_captions(clips: Iterable[Clip]) -> tuple[int, int]:
    """Count captions whose caption id another clip has as well.

    Returns:
        ``(shared, total)`` numbers of captions.
    """
    ids, owners = array("q"), array("q")
    for owner, clip in enumerate(clips):
        own = clip.caption_ids
        ids.extend(own)
        owners.extend([owner] * len(own))
    texts = np.unique(ids, return_inverse=True)[1]
    clips_of_text = np.bincount(np.unique(np.stack([texts, owners]), axis=1)[0])
    return int((clips_of_text[texts] > 1).sum()), len(ids)


def summarize(name: str, splits: Mapping[str, Sequence[Clip]], counts: Mapping[str, Counts]) -> str:
    """One line: clips and captions a split, duration, shared captions, and what was left out.

    Args:
        name: of the data set.
        splits: split name to its clips.
        counts: split name to its counts, also of splits that were left without a clip, and
            :data:`NO_SPLIT`.
    """
    parts = [
        _split_summary(split, splits.get(split, ()), counts.get(split, Counts()))
        for split in {**splits, **counts}
    ]
    seconds = total_seconds(counts.values())
    if seconds is not None:
        parts.append(_duration(seconds))
    shared, total = shared_captions(chain.from_iterable(splits.values()))
    parts.append(f"{shared:,} of {total:,} captions ({shared / total:.1%}) shared by 2+ clips")
    missing = sum(count.missing for count in counts.values())
    parts.append(f"{missing:,} clips without audio left out")
    for field, words in _NOTES.items():
        number = sum(getattr(count, field) for count in counts.values())
        if number:
            parts.append(f"{number:,} {words}")
    return f"{name}: " + ", ".join(parts)


def low_rates(name: str, file_rates: Mapping[int, int], sample_rate: int) -> str | None:
    """A sentence where most audio has a lower rate than a model listens to, else ``None``.

    Args:
        name: of the data set.
        file_rates: sampling rate to the number of clips that have it, in Hz.
        sample_rate: of the model.
    """
    total = sum(file_rates.values())
    low = {rate: n for rate, n in file_rates.items() if rate < _LOW_RATE * sample_rate}
    if 2 * sum(low.values()) <= total:
        return None
    most = max(low, key=lambda rate: low[rate])
    return (
        f"{name}: {sum(low.values()):,} of {total:,} clips have a lower sampling rate than the "
        f"model's {sample_rate} Hz (most {most} Hz), so the upper bands that it listens to are "
        "empty; take the original recordings, or an encoder of that rate"
    )


def _split_summary(split: str, clips: Sequence[Clip], counts: Counts) -> str:
    captions = sorted({len(clip.captions) for clip in clips}) or [0]
    captions_a_clip = "-".join(map(str, dict.fromkeys([captions[0], captions[-1]])))
    text = f"{split} {len(clips):,} clips x {captions_a_clip} captions"
    notes = [] if counts.seconds is None else [_duration(counts.seconds)]
    for field in ("missing", "unreadable"):
        if getattr(counts, field):
            notes.append(f"{getattr(counts, field):,} {field}")
    if split == NO_SPLIT:
        return f"{', '.join(notes)} that were in no split yet"
    return f"{text} ({', '.join(notes)})" if notes else text


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.1f} s"
