"""What opening refuses or warns of before any audio is read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.ids import has_letters, normalize_caption

NAMES_TRIED = (
    "names were tried as they are, with / for \\, ~ and $NAME replaced, file: URLs as paths, "
    "without blanks around them, in either form of accents, and with the suffix in another case or "
    "another one of audio where one file alone has it"
)


def check_disjoint(name: str, tables: Mapping[str, CaptionTable], *, allow: bool) -> None:
    """Refuse a recording that the captions files list in two splits.

    Args:
        name: of the data set.
        tables: split to its recordings.
        allow: whether a recording may be in two splits; a ``clip_id`` may not all the same.
    """
    for first, second in combinations(tables, 2):
        known = {key: item for item in tables[first].recordings.values() for key in _keys(item)}
        both = [
            (known[key], item)
            for item in tables[second].recordings.values()
            for key in _keys(item)
            if key in known and not (allow and not item.has_clip_id)
        ]
        if both:
            one, two = both[0]
            lift = "" if two.has_clip_id else ", or set allow_shared_audio: true"
            raise InputError(
                f"{name}: {number_of(both, 'clip')} in both {first!r} and {second!r}: "
                f"{listed([repr(item.key) for _, item in both])}; a recording may be in one split "
                f"only, take it out of one of the two ({one.where} and {two.where}){lift}"
            )


def _keys(item: Captioned) -> tuple[str, ...]:
    """The key, and the video where others of its clips have keys of their own."""
    return item.key, *item.shared_names[:1]


def check_captions(name: str, tables: Mapping[str, CaptionTable], *, strict: bool) -> None:
    """Warn of clips without a caption, refuse them under ``strict`` or if there are no others, and
    :func:`check_words`."""
    for split, table in tables.items():
        if not (keys := table.without_caption):
            continue
        which = (
            f"{name}: {number_of(keys, 'clip')} of split {split!r} without a caption: "
            f"{listed(list(map(repr, keys)))}"
        )
        if strict or not any(t.recordings for t in tables.values()):
            lift = " with strict: false" if strict else ""
            raise InputError(f"{which}; give each one, or leave them out{lift}")
        warnings.warn(f"{which}; left out", stacklevel=4)
    items = [item for table in tables.values() for item in table.recordings.values()]
    check_words(
        name,
        ((text, item.where if item.row else item.key) for item in items for text in item.captions),
    )


def check_words(name: str, captions: Iterable[tuple[str, str]]) -> None:
    """Warn of captions that are numbers or dates, and refuse them if there are no others.

    Args:
        name: of the data set.
        captions: each with the place where it is.
    """
    total, numbers = 0, []
    for text, place in captions:
        total += 1
        if _is_a_number(text):
            numbers.append(f"{text!r} ({place})")
    if not numbers:
        return
    which = (
        f"{name}: captions are numbers or dates ({len(numbers):,} of {total:,}): {listed(numbers)}"
    )
    if len(numbers) == total:
        raise InputError(f"{which}; say in words what is heard")
    warnings.warn(f"{which}; take them out if they say nothing of the sound", stacklevel=5)


def _is_a_number(text: str) -> bool:
    """Whether a caption has digits in it and nothing else, as an id, a time or a date."""
    return not has_letters(text) and normalize_caption(text).replace(" ", "").isdecimal()


def check_audio_found(
    name: str,
    tables: Mapping[str, CaptionTable],
    place: str | os.PathLike[str],
    *,
    strict: bool,
) -> None:
    """Warn of clips whose audio was not found; refuse them under ``strict``, or if they are all.

    Args:
        name: of the data set.
        tables: split to its recordings.
        place: where audio was looked for.
        strict: whether missing audio is an error.
    """
    items = [item for table in tables.values() for item in table.recordings.values()]
    absent = [item for item in items if item.path is None]
    total = len(items)
    if not absent:
        return
    if not strict and len(absent) < total:
        warnings.warn(
            f"{name}: {number_of(absent, 'clip')} without audio in {os.fspath(place)}, of "
            f"{total:,}: "
            f"{listed([repr(item.names[0] if item.names else item.key) for item in absent], 5)}; "
            f"{NAMES_TRIED}{_in_a_subfolder(place, absent)}",
            stacklevel=4,
        )
        return
    names = listed([repr(text) for text in absent[0].names], 6)
    if len(absent) == total:
        which, what_to_do = f"none of the {total:,} clips has its audio", "set audio to its folder"
    else:
        which = f"{len(absent):,} of {total:,} clips have no audio"
        what_to_do = "put it there or set strict: false"
    raise MissingFileError(
        f"{os.fspath(place)}: {name}: {which} there: looked for {absent[0].key!r} under the name "
        f"{names} (.wav, .flac, ...), {describe_folder(place)}; {NAMES_TRIED}"
        f"{_in_a_subfolder(place, absent)}; {what_to_do}"
    )


def _in_a_subfolder(place: str | os.PathLike[str], absent: Sequence[Captioned]) -> str:
    """The first bare name that one file below the place has, so that a user sees what is meant."""
    if not os.path.isdir(place):
        return ""
    below: dict[str, list[str]] = {}
    for path in AudioFiles(place).paths:
        below.setdefault(os.path.basename(path), []).append(path)
    for item in absent:
        for name in item.names:
            if len(found := below.get(name, [])) == 1 and found[0] != name:
                return f"; {name!r} lies in a subfolder: write {found[0]!r} into the table"
    return ""


def number_of(items: Sequence[object], noun: str) -> str:
    """``1 clip is`` or ``2 clips are``, for the subject of a message."""
    number = len(items)
    return f"{number:,} {noun} is" if number == 1 else f"{number:,} {noun}s are"
