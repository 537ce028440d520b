"""The whole inspection of a data set: captions, audio, and what other data sets have of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.summary import NO_SPLIT, Counts
from atr_moco_plugin.inspection.audio import inspect_audio
from atr_moco_plugin.inspection.caption_report import CaptionReport, inspect_captions
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.findings import Finding, keys_to_exclude
from atr_moco_plugin.inspection.kinds import ordered
from atr_moco_plugin.inspection.leaks import leaks
from atr_moco_plugin.inspection.opening import Opened
from atr_moco_plugin.inspection.same_audio import same_audio


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        dataset: the data set.
        others: the data sets it was held against.
        captions: what its captions are like.
        audio: what is in each clip; ``None`` where there is no audio, or it was not looked at.
        findings: by kind, those on audio first; of a kind the worst come first.
        notes: what opening the data sets warned of, and what was not looked at.
    """

    dataset: AudioTextDataset
    others: tuple[AudioTextDataset, ...]
    captions: CaptionReport
    audio: list[ClipAudio] | None
    findings: list[Finding]
    notes: tuple[str, ...]

    def found(self) -> dict[str, Counter[str]]:
        """Kind of finding to its number in each split: of captions for kinds that are about them,
        else of clips."""
        found: dict[str, Counter[str]] = {}
        of_captions = {kind for own in self.captions.figures.values() for kind in own["found"]}
        for finding in self.findings:
            if finding.kind not in of_captions:
                found.setdefault(finding.kind, Counter())[finding.split] += 1
        for split, figures in self.captions.figures.items():
            for kind, number in figures["found"].items():
                if number:
                    found.setdefault(kind, Counter())[split] += number
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it, ready for JSON, but for the figures of single clips."""
        return {
            "data_set": self.dataset.name,
            "against": [other.name for other in self.others],
            "splits": {
                split: {
                    "clips": len(clips),
                    "left_out": left_out(self.dataset.counts.get(split, Counts())),
                    "captions": self.captions.figures[split],
                    "audio": None if self.audio is None else audio_figures(self.audio, split),
                }
                for split, clips in self.dataset.splits.items()
            },
            "left_out_of_no_split": left_out(self.dataset.counts.get(NO_SPLIT, Counts())),
            "tokens": self._tokens(),
            "found": {kind: dict(numbers) for kind, numbers in self.found().items()},
            "findings": [asdict(finding) for finding in self.findings],
            "exclude": keys_to_exclude(self.findings),
            "notes": list(self.notes),
        }

    def _tokens(self) -> dict[str, Any] | None:
        tokens = self.captions.tokens
        if tokens is None:
            return None
        return {
            "a_caption": least_median_most(tokens.lengths.tolist()),
            "has_unknown": tokens.has_unknown,
            "unknown_words": self.captions.unknown_words,
        }


def inspect_dataset(
    opened: Opened,
    others: Sequence[Opened] = (),
    *,
    audio: bool = True,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_tokens: int = 64,
    num_workers: int = 0,
    decoder: Decoder = "soundfile",
    progress: bool = False,
) -> Inspection:
    """Look at every clip and every caption of a data set.

    Args:
        opened: the data set, see :func:`~atr_moco_plugin.inspection.opening.open_to_inspect`.
        others: data sets that it must have nothing in common with. One of a name that another has
            is called ``name (2)`` and so on, since findings name them.
        audio: whether to decode the audio that is there.
        tokenizer: the model's; without one, no tokens are counted.
        max_tokens: that the model reads, special ones included.
        num_workers: threads that decode ahead; 0 decodes in this one.
        decoder: what reads the files.
        progress: whether to show on standard error how far it is.
    """
    others = _named_apart(opened.dataset.name, others)
    dataset = opened.dataset
    captions = inspect_captions(dataset.name, dataset.splits, tokenizer, max_tokens)
    notes = [*opened.notes, *captions.notes]
    clips: list[ClipAudio] | None = None
    findings: list[Finding] = []
    if opened.has_audio and audio:
        clips, findings = inspect_audio(
            dataset, num_workers=num_workers, decoder=decoder, progress=progress
        )
        findings.sort(key=_severity(clips))
        findings += same_audio(dataset, clips, decoder=decoder)
    elif opened.has_audio:
        notes.append("The audio was not looked at, as was asked.")
    against: dict[str, tuple[AudioTextDataset, list[ClipAudio]]] = {}
    for other in others:
        notes += [f"{other.dataset.name}: {note}" for note in other.notes]
        its: list[ClipAudio] = []
        if clips is not None and other.has_audio:
            its, _ = inspect_audio(
                other.dataset, num_workers=num_workers, decoder=decoder, progress=progress
            )
            if unread := [clip for clip in its if clip.problem]:
                notes.append(
                    f"{other.dataset.name}: {len(unread):,} of {len(its):,} clips cannot be "
                    "decoded, so that no audio was held against theirs, such as "
                    f"{unread[0].key}: {unread[0].problem}."
                )
        against[other.dataset.name] = other.dataset, its
    findings += leaks(dataset, clips or (), against, decoder=decoder)
    return Inspection(
        dataset,
        tuple(other.dataset for other in others),
        captions,
        clips,
        _by_kind(findings + captions.findings),
        tuple(notes),
    )


def _named_apart(own: str, others: Sequence[Opened]) -> list[Opened]:
    """The other data sets, each with a name of its own; the caller's keep theirs."""
    names, named = {own}, []
    for other in others:
        base, number, dataset = other.dataset.name, 2, copy(other.dataset)
        while dataset.name in names:
            dataset.name, number = f"{base} ({number})", number + 1
        names.add(dataset.name)
        named.append(replace(other, dataset=dataset))
    return named


_SEVERITY: Mapping[str, Callable[[ClipAudio], float]] = {
    "mostly silent": lambda clip: clip.silent,
    "quiet": lambda clip: -clip.peak,
    "clipping": lambda clip: clip.clipped,
    "scale": lambda clip: clip.peak,
    "DC offset": lambda clip: clip.offset,
}


def _severity(audio: Sequence[ClipAudio]) -> Callable[[Finding], float]:
    """What to sort findings by, so that of each kind the worst come first."""
    clips = {(clip.split, clip.key): clip for clip in audio}

    def severity(finding: Finding) -> float:
        measure = _SEVERITY.get(finding.kind)
        return 0.0 if measure is None else -measure(clips[finding.split, finding.key])

    return severity


def _by_kind(findings: Sequence[Finding]) -> list[Finding]:
    places = {kind: place for place, kind in enumerate(ordered(x.kind for x in findings))}
    return sorted(findings, key=lambda finding: places[finding.kind])


def left_out(counts: Counts) -> dict[str, int]:
    """What opening a split left out, as far as there is any."""
    found = {key: value for key, value in asdict(counts).items() if key != "seconds" and value}
    # They are findings here, clip by clip.
    return {key: value for key, value in found.items() if not key.endswith("_audio")}


def audio_figures(audio: Sequence[ClipAudio], split: str) -> dict[str, Any]:
    """Durations in seconds, rates in Hz, channels and peaks of the clips of a split that can be
    decoded; rates and channels with their numbers of clips."""
    clips = [clip for clip in audio if clip.split == split and not clip.problem]
    return {
        "clips": len(clips),
        "total_seconds": sum(clip.seconds for clip in clips),
        "seconds": least_median_most([clip.seconds for clip in clips]),
        "rates": dict(Counter(clip.rate for clip in clips).most_common()),
        "channels": dict(Counter(clip.channels for clip in clips).most_common()),
        "peak": least_median_most([clip.peak for clip in clips]),
    }


def least_median_most(values: Sequence[float]) -> list[float] | None:
    """The least, the median and the greatest of some values; ``None`` of none."""
    return [min(values), float(np.median(values)), max(values)] if len(values) else None
