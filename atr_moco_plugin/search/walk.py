"""Which sounds a folder has: its files and those in its tars, each once."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from atr_moco_plugin.data.audio.source import FileSlice, FileSource, Segment
from atr_moco_plugin.data.sets.tar_index import Shard, tar_members
from atr_moco_plugin.data.tables.file_names import suffix_of
from atr_moco_plugin.search.names import part_of, shown_name

TAR = ".tar"
"""Suffix of a file that has sounds in it."""


class Found(NamedTuple):
    """A sound that is on disk.

    Attributes:
        path: absolute path of its file.
        member: as that of a :class:`~atr_moco_plugin.search.store.Recording`.
        size: bytes of the file or the member.
        mtime_ns: when the file was last changed.
        offset: where the member begins in a tar, in bytes.
        ctime_ns: when the file was last changed, renamed or given a time: of two files that were
            swapped with their times, what tells that they were.
    """

    path: str
    member: str
    size: int
    mtime_ns: int
    offset: int = 0
    ctime_ns: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What names it in an index."""
        return (self.path, self.member)

    @property
    def name(self) -> str:
        """As it is shown."""
        return shown_name(self.path, self.member)

    @property
    def source(self) -> FileSource:
        """What reads it."""
        if not self.member:
            return self.path
        part = part_of(self.member)
        if part is not None:
            return Segment(self.path, *part)
        return FileSlice(Path(self.path), self.offset, self.size, self.member)


@dataclass
class Notes:
    """What was met on the way and is no sound to index.

    Attributes:
        other: suffix to the number of files that were passed over.
        problems: name and reason of folders, tars and named files that cannot be read.
        unread: paths of links that lead nowhere now, and of tars and files that cannot be read, or
            not to their end: what an index has of them may still be there.
        missing: paths of files that a list or a table names and that are not there.
    """

    other: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

    def add_unread(self, path: str, reason: str) -> None:
        """Note what cannot be read, or not to its end."""
        self.problems.append((path, reason))
        self.unread.add(path)


def walk_tree(root: str, suffixes: Collection[str], notes: Notes) -> Iterator[Found]:
    """All sounds below a folder, in the order of their names.

    Hidden files and folders (``.name``) are passed over. Links are followed after everything else,
    and what was met before is not met again, so loops end and each file comes once, under its own
    name where it has one below ``root``. A link to a folder that ``root`` is in is not followed.

    Args:
        root: real path of the folder.
        suffixes: of sounds, in lower case.
        notes: takes what was passed over and what cannot be read.

    Yields:
        Sounds, with the members of a tar in its place.
    """
    walked: set[tuple[int, int]] = set()
    links: list[str] = []
    file_links: list[str] = []
    folder: str | None = root
    while folder is not None:
        for path in _walk_folder(folder, walked, links, notes):
            yield from found_at(path, suffixes, notes)
        folder = None
        while links and folder is None:
            link = links.pop(0)
            real = os.path.realpath(link)
            if not os.path.isdir(real):
                file_links.append(link)
            elif not (root + os.sep).startswith(real.rstrip(os.sep) + os.sep):
                folder = link
    targets: set[str] = set()
    for link in file_links:
        real = os.path.realpath(link)
        wanted = suffix_of(real) in (*suffixes, TAR) and not _hidden(os.path.basename(real))
        met = wanted and os.path.isfile(real) and _identity(os.path.dirname(real)) in walked
        if met or real in targets:
            continue
        if suffix_of(link) in (*suffixes, TAR):
            targets.add(real)
        yield from found_at(link, suffixes, notes)


def _walk_folder(
    root: str, walked: set[tuple[int, int]], links: list[str], notes: Notes
) -> Iterator[str]:
    """Paths of the regular files below a folder; adds to ``walked`` and ``links``."""
    stack = [root + os.sep]
    while stack:
        path = stack.pop()
        if not path.endswith(os.sep):
            yield path
            continue
        folder = path.rstrip(os.sep) or os.sep
        identity = _identity(folder)
        if identity in walked:
            continue
        if identity is not None:
            walked.add(identity)
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as ex:
            notes.problems.append((folder, f"cannot be read ({ex.strerror or ex})"))
            continue
        below = []
        for entry in inside:
            if _hidden(entry.name):
                continue
            if entry.is_symlink():
                links.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                below.append(entry.path + os.sep)
            else:
                below.append(entry.path)
        stack += reversed(below)


def found_at(path: str, suffixes: Collection[str], notes: Notes) -> Iterator[Found]:
    """The sound at a path, those in the tar there, or none."""
    suffix = suffix_of(path)
    if suffix not in suffixes and suffix != TAR:
        notes.other[suffix] += 1
        return
    try:
        state = os.stat(path)
    except OSError as ex:
        gone = isinstance(ex, FileNotFoundError) and not os.path.lexists(path)
        if not gone:  # a link to nothing, or a disk that fails
            notes.add_unread(path, f"cannot be read ({ex.strerror or ex})")
        return
    if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
        notes.problems.append((path, "is no file"))
    elif suffix == TAR:
        yield from walk_tar(path, suffixes, notes)
    else:
        yield Found(path, "", state.st_size, state.st_mtime_ns, ctime_ns=state.st_ctime_ns)


def walk_tar(path: str, suffixes: Collection[str], notes: Notes) -> Iterator[Found]:
    """The sounds in a tar, in their order there; of two members of one name the first counts."""
    shard = Shard(Path(path))
    seen: set[str] = set()
    repeated = 0
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            for member in tar_members(file, shard):
                suffix = suffix_of(member.name)
                if suffix not in suffixes:
                    notes.other[suffix] += 1
                elif member.name in seen:
                    repeated += 1
                else:
                    seen.add(member.name)
                    yield Found(
                        path, member.name, member.size,
                        state.st_mtime_ns, member.offset, state.st_ctime_ns,
                    )  # fmt: skip
    except OSError as ex:
        notes.add_unread(path, f"cannot be read ({ex.strerror or ex})")
    if shard.problem:
        notes.add_unread(path, f"breaks off ({shard.problem})")
    if repeated:
        notes.problems.append((path, f"{repeated:,} members have the name of an earlier one"))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _identity(folder: str) -> tuple[int, int] | None:
    """What tells folders apart, whatever they are called; None where that is not known."""
    try:
        state = os.stat(folder)
    except OSError:
        return None
    return (state.st_dev, state.st_ino)
