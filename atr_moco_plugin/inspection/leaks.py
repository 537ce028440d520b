"""What a data set has in common with other data sets: audio, ids of the recordings, captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.recording_ids import RecordingId, recording_ids
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
from atr_moco_plugin.inspection.same_audio import MAX_OTHERS

EVALUATED = ("valid", "test")
"""Splits that nothing may be trained on."""


def leaks(
    dataset: AudioTextDataset,
    audio: Sequence[ClipAudio],
    against: Mapping[str, tuple[AudioTextDataset, Sequence[ClipAudio]]],
    *,
    decoder: Decoder = "soundfile",
) -> list[Finding]:
    """What there is to say of clips that another data set has as well.

    Args:
        dataset: the data set that the findings are on.
        audio: of its clips, see :func:`~.audio.inspect_audio`; empty leaves the audio alone.
        against: other data sets, each with the audio of its clips or none, by the names that
            findings call them.
        decoder: what reads the files.

    Returns:
        Findings of the kinds ``leak of audio`` (one sound), ``leak of ids`` (the same video on
        YouTube or sound on Freesound, by the names of clips and files) and ``leak of captions``
        (a caption that is equal after normalisation, :func:`~atr_moco_plugin.ids.caption_id`). A
        clip whose audio or place in a video is in ``valid`` or ``test`` of another data set is to
        be left out. It is not where it is evaluated on itself: the other data set is to leave it
        out then.
    """
    findings: list[Finding] = []
    for name, (other, its_audio) in against.items():
        if audio and its_audio:
            findings += _of_audio(dataset, audio, name, other, its_audio, decoder)
        findings += _of_ids(dataset, name, other)
        findings += _of_captions(dataset, name, other)
    return findings


def _of_audio(
    dataset: AudioTextDataset,
    audio: Sequence[ClipAudio],
    name: str,
    other: AudioTextDataset,
    its_audio: Sequence[ClipAudio],
    decoder: Decoder,
) -> Iterator[Finding]:
    both = [*audio, *its_audio]
    waveforms = Waveforms([(dataset, len(audio)), (other, len(its_audio))], decoder)
    copies = find_copies(both, waveforms)
    pairs = pairs_of(copies)
    for group in grouped(copies):
        theirs = [at for at in group if at >= len(audio)]
        own = sorted({copy for at in group for copy in pairs[at]})
        judged = [at for at in theirs if both[at].split in EVALUATED]
        judged_too = with_sound_of(judged, own, both)
        for at in sorted(with_sound_of(theirs, own, both).difference(theirs)) if theirs else []:
            clip, best = both[at], max(pairs[at], key=lambda copy: _rank(copy, at, len(audio)))
            order = sorted(theirs, key=lambda other: other != best.other(at))
            yield Finding(
                "leak of audio",
                clip.split,
                clip.key,
                best.sentence(both, at, name if best.other(at) >= len(audio) else ""),
                tuple((name, both[k].split, both[k].key) for k in order[:MAX_OTHERS]),
                exclude=clip.split not in EVALUATED and at in judged_too,
            )


def _rank(copy: Copy, at: int, ours: int) -> tuple[bool, bool, float]:
    """Pairs with a clip of the other data set come first, then exact ones, then long ones."""
    return copy.other(at) >= ours, copy.exact, copy.seconds


def _of_ids(dataset: AudioTextDataset, name: str, other: AudioTextDataset) -> Iterator[Finding]:
    known: dict[tuple[str, str], list[tuple[RecordingId, str, str]]] = defaultdict(list)
    for split, clip in _clips(other):
        for its in recording_ids(clip):
            known[its.site, its.number].append((its, split, clip.key))
    for split, clip in _clips(dataset):
        for mine in recording_ids(clip):
            theirs = known.get((mine.site, mine.number), [])
            same = [found for found in theirs if mine.may_be(found[0])]
            if not theirs:
                continue
            _, its_split, its_key = (same or theirs)[0]
            which = (
                "The same place of"
                if same and mine.start is not None
                else ""
                if same
                else "Another place of"
            )
            what = f"{which} {mine} is in {its_key!r} of {name}, {its_split}.".strip()
            yield Finding(
                "leak of ids",
                split,
                clip.key,
                what[0].upper() + what[1:],
                tuple((name, *found[1:]) for found in (same or theirs)[:MAX_OTHERS]),
                exclude=mine.certain
                and _trained_and_evaluated(split, (found[1] for found in same)),
            )


def _of_captions(
    dataset: AudioTextDataset, name: str, other: AudioTextDataset
) -> Iterator[Finding]:
    known: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for split, clip in _clips(other):
        for number in dict.fromkeys(clip.caption_ids):
            known[number].append((split, clip.key))
    for split, clip in _clips(dataset):
        shared = {
            text: known[number]
            for text, number in zip(clip.captions, clip.caption_ids, strict=True)
            if number in known
        }
        if shared:
            text, theirs = next(iter(shared.items()))
            clips = list(dict.fromkeys(found for several in shared.values() for found in several))
            yield Finding(
                "leak of captions",
                split,
                clip.key,
                f"{len(shared)} of its {len(clip.captions)} captions "
                f"{'is' if len(shared) == 1 else 'are'} in {name} as well, such "
                f"as {text!r} of {theirs[0][1]!r}, {theirs[0][0]}.",
                tuple((name, *found) for found in clips[:MAX_OTHERS]),
            )


def _clips(dataset: AudioTextDataset) -> Iterator[tuple[str, Clip]]:
    for split, clips in dataset.splits.items():
        for clip in clips:
            yield split, clip


def _trained_and_evaluated(split: str, theirs: Iterator[str]) -> bool:
    return split not in EVALUATED and any(other in EVALUATED for other in theirs)
