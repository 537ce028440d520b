"""Clips that a list leaves out: a text file with the key of a clip on each line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.data.opening.duplicates import file_identity
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.atomic import write_atomically


def write_exclusion(path: str | os.PathLike[str], keys: Iterable[str]) -> None:
    """Write a list that :class:`Exclusion` reads, whole or not at all.

    Raises:
        InputError: if a key has a line break in it.
    """
    lines = list(keys)
    for key in lines:
        if len(f"{key}.".splitlines()) > 1:
            raise InputError(
                f"{os.fspath(path)}: the clip {key!r} has a line break in its key and cannot stand "
                "in a list; rename it"
            )
    write_atomically(Path(path), "".join(f"{key}\n" for key in lines))


class Exclusion:
    """A list of clips to leave out, and how many of each split it has left out.

    Args:
        file: UTF-8, a key a line; lines without one are passed over. ``None`` leaves nothing out.

    Attributes:
        numbers: split to its clips that were left out.

    Raises:
        MissingFileError: if there is no such file.
    """

    def __init__(self, file: Path | None) -> None:
        self.numbers: Counter[str] = Counter()
        self._file = file
        self._renamed: list[tuple[Captioned, str]] = []
        self._lines: dict[str, int] = {}
        if file is None:
            return
        try:
            text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
        except OSError as error:
            raise MissingFileError(
                f"{file}: the list of clips to leave out cannot be read ({error.strerror}); set "
                "exclude to a text file of keys"
            ) from error
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                self._lines.setdefault(_written(line), number)

    def from_clips(
        self, name: str, splits: Mapping[str, Sequence[Clip]], missing: Iterable[str] = ()
    ) -> dict[str, Sequence[Clip]]:
        """The clips that are left; a split without one is left out.

        Args:
            name: of the data set, for messages.
            splits: split to its clips.
            missing: keys of clips that are in no split, since their audio is missing.

        Raises:
            InputError: if the list names a clip that is not there, or all of them.
        """
        if not self._lines:
            return dict(splits)
        known = {_written(clip.key) for clips in splits.values() for clip in clips}
        self._check(name, known.union(map(_written, missing)))
        left: dict[str, Sequence[Clip]] = {}
        for split, clips in splits.items():
            left[split] = [clip for clip in clips if _written(clip.key) not in self._lines]
            self.numbers[split] += len(clips) - len(left[split])
        left = {split: clips for split, clips in left.items() if clips}
        self._check_left(name, left)
        return left

    def from_tables(
        self, name: str, tables: Mapping[str, CaptionTable], *, audio: bool = True
    ) -> dict[str, CaptionTable]:
        """The recordings that are left.

        A recording takes those of its split along that are the same part of the same file, since
        they would be one clip.

        Args:
            name: of the data set, for messages.
            tables: split to its recordings, each with the path of its audio.
            audio: whether a recording without a path is no clip.

        Raises:
            InputError: if the list names a clip that is not there, or all of them.
        """
        if not self._lines:
            return dict(tables)
        named = {key for _, _, keys in _named(tables, audio) for key in keys}
        for table in tables.values():
            named.update(map(_written, table.without_caption))
        self._check(name, named)
        places = {
            (split, _place(item))
            for split, item, keys in _named(tables, audio)
            if any(key in self._lines for key in keys)
        }
        self.numbers.update(split for split, _ in places)
        # A key names the same clip with the list and without it.
        gone: set[str] = set()
        kept: dict[str, dict[str, Captioned]] = {split: {} for split in tables}
        for split, table in tables.items():
            earlier = set(gone)
            for identity, item in table.recordings.items():
                if (split, _place(item)) in places:
                    gone.add(item.key)
                else:
                    kept[split][identity] = item
                    if item.key in earlier:
                        self._renamed.append((item, f"{split}/{item.key}"))
        self._check_left(name, {split: items for split, items in kept.items() if items})
        return {split: replace(table, recordings=kept[split]) for split, table in tables.items()}

    def rename(self) -> None:
        """Give recordings the keys that they have without the list, where another of that name in
        an earlier split was left out; after it is known that no two splits share a recording."""
        for item, key in self._renamed:
            item.key = key

    def _check(self, name: str, known: set[str]) -> None:
        for key, line in self._lines.items():
            if key not in known:
                raise InputError(
                    f"{self._file}: line {line} leaves out {key!r}, which is no clip of {name}; "
                    "write the key of one of its clips, or take the line out"
                )

    def _check_left(self, name: str, left: Mapping[str, object]) -> None:
        if not left:
            raise InputError(f"{self._file}: leaves out every clip of {name}; keep some of them")


def _named(
    tables: Mapping[str, CaptionTable], audio: bool
) -> Iterator[tuple[str, Captioned, tuple[str, ...]]]:
    """Each recording with its split and the keys that its clip may have."""
    earlier: set[str] = set()
    for split, table in tables.items():
        own: set[str] = set()
        for item in table.recordings.values():
            keys = (item.key, item.identity)  # rows of one file may be joined under the second
            names = (f"{split}/{key}" if key in earlier else key for key in keys)
            yield split, item, tuple(map(_written, names))
            if item.path is not None or not audio:
                own.update(keys)
        earlier |= own


def _written(key: str) -> str:
    """A key as a text file has it: names of files need not be valid text."""
    return key.encode("utf-8", "backslashreplace").decode()


def _place(item: Captioned) -> object:
    """Equal for recordings that are one clip."""
    if item.path is None:
        return item.identity
    return file_identity(item.path), item.segment
