"""Splits where a data set has none: drawn by recording, with every class in each of them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.duplicates import equal_sources, same_files
from atr_moco_plugin.data.opening.recording_ids import RecordingId, names_of, recording_ids
from atr_moco_plugin.data.opening.unused_options import refuse_unused
from atr_moco_plugin.data.tables.file_names import stem_of
from atr_moco_plugin.ids import stable_digest

# "street_part2", "street-chunk_03": pieces that were cut out of one recording.
_PIECE = re.compile(r"(?P<id>.*\w)[\s._-]+(?:part|chunk|segment|seg|slice)[\s._-]*\d+", re.I)
# Eleven letters of words, which would pass for the id of a video: dog_barking, DogBarking1.
_WORDS = re.compile(r"(?:[A-Z]?[a-z]+[-_]?)+[-_]?\d*|[A-Z_-]+\d*")


@dataclass(frozen=True)
class Drawn:
    """Splits that were drawn.

    Attributes:
        splits: for each clip the name of its split.
        recordings: how many recordings the clips are of.
        example: the name of a clip, and the recording that it says it is of; ``None`` where no two
            clips are of one recording by their names.
        thin: classes that are not in every split of which there is to be a share.
    """

    splits: list[str]
    recordings: int
    example: tuple[str, str] | None
    thin: list[str]


def draw_splits(
    clips: Sequence[Clip],
    recordings: Mapping[str, str],
    fractions: Mapping[str, float],
    seed: int,
) -> Drawn:
    """Put clips into ``train`` and other splits, no recording into two of them.

    Clips are of one recording where a table says so, where their names do (see
    :func:`recording_in_name`), where they are parts of one file, and where their files are equal.

    Args:
        clips: the clips; the label of each, where there is one, is its class.
        recordings: key of a clip to its recording, as far as a table says it.
        fractions: the splits to take out, in order, and the share of each class's clips that each
            is to have; the rest is ``train``.
        seed: decides which recordings are in which split.
    """
    named = [recordings.get(clip.key) or recording_in_name(clip) for clip in clips]
    groups = _joined(clips, named)
    classes = [clip.label or "" for clip in clips]
    split_of: dict[str, str] = {}
    for split, fraction in fractions.items():
        left = [
            (label, group)
            for label, group in zip(classes, groups, strict=True)
            if group not in split_of
        ]
        wanted = fraction * len(clips) / max(1, len(left))
        chosen = choose_sources(left, min(0.5, wanted), seed)
        split_of.update(dict.fromkeys(chosen, split))
    splits = [split_of.get(group, "train") for group in groups]
    # A share of 0 asks for nothing.
    wanted_splits = 1 + sum(fraction > 0 for fraction in fractions.values())
    found: dict[str, set[str]] = defaultdict(set)
    for label, split in zip(classes, splits, strict=True):
        found[label].add(split)
    return Drawn(
        splits,
        len(set(groups)),
        _example(clips, named),
        sorted(label for label, its in found.items() if len(its) < wanted_splits),
    )


def check_no_drawing(root: os.PathLike[str], config: object, *names: str) -> None:
    """Refuse options that say how splits are drawn where none are.

    Args:
        root: the folder, for the message.
        config: a dataclass of options.
        names: those of the options; one that has its default is passed over.

    Raises:
        InputError: for the first that is set, as
            :func:`~atr_moco_plugin.data.opening.unused_options.refuse_unused` says.
    """
    for name in names:
        if (value := getattr(config, name)) != getattr(type(config), name):
            refuse_unused(
                name,
                f"{root}: has splits of its own, and `{name}` is {value}: leave it out, for it is "
                "of splits that are drawn",
            )


def recording_in_name(clip: Clip) -> str | None:
    """The recording that the name of a clip's file says it is of; ``None`` where it says none.

    Names are read as ESC-50 (``1-100032-A-0``), UrbanSound8K (``100032-3-0-0``), Freesound
    (``100032__user__title``) and AudioSet (``Y<id>_<start>``, with the eleven characters of a video
    on YouTube) write them, and as pieces of one file (``street_part2``, ``street-chunk_03``; also
    ``segment``, ``seg`` and ``slice``), which are of one recording within a folder.
    """
    for one in recording_ids(clip):
        if one.certain and (one.site != "YouTube" or not _WORDS.fullmatch(one.number)):
            return _shown(one)
    folder, _, name = clip.key.rpartition("/")
    piece = _PIECE.fullmatch(stem_of(name))
    return f"{folder}/{piece['id']}".lstrip("/") if piece else None


def _shown(one: RecordingId) -> str:
    return f"{one.site} {one.number}"


def _joined(clips: Sequence[Clip], named: Sequence[str | None]) -> list[str]:
    """A group for each clip: those with one name, in one file or of equal files have one."""
    groups = _named_groups(clips, named)
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    sources = [clip.source for clip in clips]
    files = [at for at, x in enumerate(sources) if isinstance(x, (str, os.PathLike, *_PARTS))]
    places = [sources[at] for at in files]
    for same in (*same_files(places), *equal_sources(places)):
        first, *others = sorted(root(groups[files[at]]) for at in same)
        for other in others:
            parent[root(other)] = root(first)
    return [root(group) for group in groups]


def _named_groups(clips: Sequence[Clip], named: Sequence[str | None]) -> list[str]:
    """A group for each clip, by its name.

    A file that is called by a number (``100032.wav``) is a recording of its own, unless the name of
    another one is of the sound with this number. Groups are drawn by what they are called: where no
    other clip has its number, it keeps the name of earlier releases, and with it its split.
    """
    numbers = [None if name else _number_of(clip) for clip, name in zip(clips, named, strict=True)]
    certain, often = {*named}, Counter(_shown(one) for one in numbers if one is not None)
    groups: list[str] = []
    for clip, name, one in zip(clips, named, numbers, strict=True):
        number = None if one is None else _shown(one)
        if one is not None and number in certain:
            own = one.number in names_of(clip)  # 0100032 is written otherwise
        else:
            own = number is not None and often[number] == 1
        groups.append(name or (number if number and own else f"clip {clip.key}"))
    return groups


def _number_of(clip: Clip) -> RecordingId | None:
    return next((one for one in recording_ids(clip) if not one.certain), None)


_PARTS = (FileSlice, Segment)


def _example(clips: Sequence[Clip], named: Sequence[str | None]) -> tuple[str, str] | None:
    first: dict[str, str] = {}
    for clip, name in zip(clips, named, strict=True):
        if name is not None and first.setdefault(name, clip.key) != clip.key:
            return clip.key, name
    return None


def choose_sources(clips: Iterable[tuple[str, str]], fraction: float, seed: int) -> set[str]:
    """Choose sources with about ``fraction`` of each class's clips, never all sources of a class.

    Sources are taken in the order of a digest of (seed, source), which does not depend on the order
    of ``clips``. A class takes whole sources as long as each brings it nearer to its share, and at
    least its smallest one, so that every class with two sources or more has a chosen one.

    Args:
        clips: ``(class, source)`` of every clip.
        fraction: share of a class's clips wanted, in ``[0, 1)``; 0 chooses nothing.
        seed: decides which sources are chosen.

    Returns:
        The chosen sources. A source with clips of several classes is chosen for all of them.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for label, source in clips:
        counts[label][source] += 1
    chosen: set[str] = set()
    if fraction == 0:
        return chosen
    for label in sorted(counts):
        sources = counts[label]
        wanted = fraction * sum(sources.values())
        taken = sum(size for source, size in sources.items() if source in chosen)
        order = sorted(sources, key=lambda source: (stable_digest("valid", seed, source), source))
        smallest_first = sorted(order, key=sources.__getitem__)
        for source in order + smallest_first:
            after = taken + sources[source]
            nearer = abs(after - wanted) < abs(taken - wanted)
            needed = taken == 0 and source == smallest_first[0]
            if source in chosen or not (nearer or needed):
                continue
            if _leaves_every_class_one(counts, chosen | {source}):
                chosen.add(source)
                taken = after
    return chosen


def _leaves_every_class_one(counts: Mapping[str, Mapping[str, int]], chosen: set[str]) -> bool:
    return all(not sources.keys() <= chosen for sources in counts.values())
