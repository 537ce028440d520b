"""The page of an inspection: tables, figures, and findings to scroll through and listen to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin import __version__
from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.audio.read import resample
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.inspection.findings import Finding, keys_to_exclude
from atr_moco_plugin.inspection.kinds import meaning, ordered
from atr_moco_plugin.inspection.panels import panels
from atr_moco_plugin.inspection.report import Inspection
from atr_moco_plugin.inspection.tables import caption_table, clip_tables, finding_table
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.stdout import duration
from atr_moco_plugin.report.collect import sound_of
from atr_moco_plugin.report.examples import Sound
from atr_moco_plugin.report.html import render

SAMPLE_RATE = 16_000
"""Hz of the sounds in a page."""

_MAX_SECONDS = 10.0
_CLIPS_A_FINDING = 3
_LISTED = 200


class Place(NamedTuple):
    """A clip of a data set.

    Attributes:
        dataset: name of the data set.
        split: name of the split.
        key: of the clip.
    """

    dataset: str
    split: str
    key: str


class Shown(NamedTuple):
    """A finding with its first clips.

    Attributes:
        finding: the finding.
        clips: place of each clip, and the clip to be heard.
        more: how many further clips it has.
    """

    finding: Finding
    clips: list[tuple[Place, Sound]]
    more: int


@dataclass(frozen=True)
class Section:
    """All findings of one kind.

    Attributes:
        kind: of the findings.
        anchor: the section's name in a link.
        meaning: what the kind means.
        number: of findings.
        excluded: how many of them propose to leave their clip out.
        shown: the first ones, with sound.
        listed: the next ones, in words.
    """

    kind: str
    anchor: str
    meaning: str
    number: int
    excluded: int
    shown: list[Shown]
    listed: list[Finding]

    @property
    def unlisted(self) -> int:
        """How many findings are not on the page."""
        return self.number - len(self.shown) - len(self.listed)


def write_page(
    inspection: Inspection,
    path: str | os.PathLike[str],
    *,
    examples: int = 8,
    decoder: Decoder = "soundfile",
) -> None:
    """Write the page of an inspection: one file that needs no other.

    Args:
        inspection: what was found.
        path: the ``.html`` file.
        examples: findings of each kind with their clips to hear, three clips of a finding; more
            make a larger page, by about 60 kB a clip.
        decoder: what reads the clips.

    Raises:
        OSError: if the file cannot be written.
    """
    html = render(
        Path(__file__).with_name("inspection.html.j2"),
        name=inspection.dataset.name,
        facts=_facts(inspection),
        notes=inspection.notes,
        tables=[*clip_tables(inspection), caption_table(inspection)],
        findings=finding_table(inspection),
        panels=panels(inspection),
        sections=_sections(inspection, examples, decoder),
        unknown_words=inspection.captions.unknown_words,
        version=__version__,
    )
    write_atomically(Path(path), html)


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    splits = inspection.dataset.splits
    captions = sum(own["captions"] for own in inspection.captions.figures.values())
    facts = [
        ("Clips", f"{sum(map(len, splits.values())):,}"),
        ("Captions", f"{captions:,}"),
        ("Splits", ", ".join(splits)),
    ]
    if inspection.audio is not None:
        facts.append(("Audio", duration(sum(clip.seconds for clip in inspection.audio))))
    if inspection.others:
        facts.append(("Held against", ", ".join(other.name for other in inspection.others)))
    facts += [
        ("Findings", f"{len(inspection.findings):,}"),
        ("Clips to leave out", f"{len(keys_to_exclude(inspection.findings)):,}"),
    ]
    return facts


def _sections(inspection: Inspection, examples: int, decoder: Decoder) -> list[Section]:
    groups: dict[str, list[Finding]] = {}
    for finding in inspection.findings:
        groups.setdefault(finding.kind, []).append(finding)
    name = inspection.dataset.name
    first = [finding for group in groups.values() for finding in group[:examples]]
    places = {place for finding in first for place in _places(name, finding)}
    clips = _find([inspection.dataset, *inspection.others], places)
    listen = {
        dataset.name: _Listener(dataset, decoder)
        for dataset in (inspection.dataset, *inspection.others)
    }

    def shown(finding: Finding) -> Shown:
        own = [(p, listen[p.dataset](clips[p])) for p in _places(name, finding) if p in clips]
        return Shown(finding, own, 1 + len(finding.others) - len(own))

    return [
        Section(
            kind=kind,
            anchor=re.sub(r"\W+", "-", kind.lower()),
            meaning=meaning(kind),
            number=len(group := groups[kind]),
            excluded=sum(finding.exclude for finding in group),
            shown=[shown(finding) for finding in group[:examples]],
            listed=group[examples : examples + _LISTED],
        )
        for kind in ordered(groups)
    ]


def _places(name: str, finding: Finding) -> list[Place]:
    """The first clips of a finding in the data set of that name."""
    others = [Place(*other) for other in finding.others[: _CLIPS_A_FINDING - 1]]
    return [Place(name, finding.split, finding.key), *others]


def _find(datasets: Sequence[AudioTextDataset], places: Iterable[Place]) -> dict[Place, Clip]:
    wanted = set(places)
    return {
        place: clip
        for dataset in datasets
        for split, clips in dataset.splits.items()
        for clip in clips
        if (place := Place(dataset.name, split, clip.key)) in wanted
    }


class _Listener:
    """Makes clips of a data set audible, each once; the data set's own reader stays as it is."""

    def __init__(self, dataset: AudioTextDataset, decoder: Decoder) -> None:
        self._dataset = dataset
        self._reader = AudioReader(SAMPLE_RATE, decoder)
        self._known: dict[str, Sound] = {}

    def __call__(self, clip: Clip) -> Sound:
        if clip.source is None and self._dataset.missing:
            return Sound(clip.key, clip.label, clip.captions, None, None)
        if clip.key not in self._known:
            self._known[clip.key] = sound_of(clip, self._load, SAMPLE_RATE, _MAX_SECONDS)
        return self._known[clip.key]

    def _load(self, clip: Clip) -> NDArray[np.float32]:
        dataset = self._dataset
        if dataset.read is None:
            return self._reader(clip.source)
        return resample(dataset.read(clip), dataset.read_rate, SAMPLE_RATE)
