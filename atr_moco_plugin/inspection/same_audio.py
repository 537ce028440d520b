"""Clips of a data set that are one recording: in equal samples, or as copies that are not equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.copies import (
    Copy,
    Waveforms,
    find_copies,
    grouped,
    pairs_of,
    with_sound_of,
)
from atr_moco_plugin.inspection.findings import Finding

WHOLE = 0.8
"""Share of the sound of the shorter of two clips from which on the two are one recording."""

MAX_OTHERS = 20
"""Most clips of a group that a finding refers to."""

_LAST = ("valid", "test")


def same_audio(
    dataset: AudioTextDataset, audio: Sequence[ClipAudio], *, decoder: Decoder = "soundfile"
) -> list[Finding]:
    """What there is to say of clips of one data set that have sound in common.

    Args:
        dataset: the data set. Clips that may be copies are read once more.
        audio: of its clips, see :func:`~.audio.inspect_audio`.
        decoder: what reads the files.

    Returns:
        A finding on each clip of a group that has a copy in a later split (train comes first, then
        splits of other names in the order of the data set, then valid and test), of the kind
        ``leak between splits``; the clip is to be left out. And a finding on
        each clip with an earlier copy in its own split, of the kind ``same audio``: of training
        clips that are one recording all but the first are to be left out. Those of other splits
        stay, since published test sets have copies.
    """
    copies = find_copies(audio, Waveforms([(dataset, len(audio))], decoder))
    pairs = pairs_of(copies)
    ranks = _ranks(audio, dataset.splits)
    findings = []
    for group in grouped(copies):
        leaking = _leaking(group, pairs, audio, ranks)
        seen: set[str] = set()
        for at in group:
            clip = audio[at]
            leak = at in leaking
            first = clip.split not in seen
            seen.add(clip.split)
            if first and not leak:
                continue
            best = max(pairs[at], key=partial(_tells, ranks, at, leak))
            whole = any(c.second == at and c.share >= WHOLE for c in pairs[at])
            findings.append(
                Finding(
                    "leak between splits" if leak else "same audio",
                    clip.split,
                    clip.key,
                    best.sentence(audio, at),
                    _others(dataset.name, audio, best, group, at),
                    exclude=leak or (clip.split == "train" and whole),
                )
            )
    return findings


def _ranks(audio: Sequence[ClipAudio], splits: Iterable[str]) -> list[int]:
    """For each clip the place of its split: a leak is mended in the earlier one."""
    order = ["train", *(name for name in splits if name not in ("train", *_LAST)), *_LAST]
    return [order.index(clip.split) for clip in audio]


def _leaking(
    group: Sequence[int],
    pairs: Mapping[int, Sequence[Copy]],
    audio: Sequence[ClipAudio],
    ranks: Sequence[int],
) -> set[int]:
    """The clips of a group that have sound in common with one of a later split."""
    leaking: set[int] = set()
    copies = sorted({copy for at in group for copy in pairs[at]})
    for rank in sorted({ranks[at] for at in group})[:-1]:
        later = [at for at in group if ranks[at] > rank]
        reached = with_sound_of(later, copies, audio)
        leaking.update(at for at in reached if ranks[at] == rank)
    return leaking


def _tells(ranks: Sequence[int], at: int, leak: bool, copy: Copy) -> tuple[bool, bool, float]:
    """Pairs that show what a finding says come first: with a later split, else with its own."""
    mine, other = ranks[at], ranks[copy.other(at)]
    return (other > mine if leak else other == mine), copy.exact, copy.seconds


def _others(
    name: str, audio: Sequence[ClipAudio], best: Copy, group: Sequence[int], at: int
) -> tuple[tuple[str, str, str], ...]:
    """The clip that the sentence speaks of, and then the others of the group."""
    near = best.other(at)
    order = [near, *(k for k in group[: MAX_OTHERS + 2] if k not in (at, near))][:MAX_OTHERS]
    return tuple((name, audio[k].split, audio[k].key) for k in order)
