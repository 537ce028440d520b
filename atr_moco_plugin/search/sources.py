"""What ``index`` is given: a folder, a tar, a list of files or a table; and how a recording of an
index is read again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path

from atr_moco_plugin.data.audio.source import FileSource, Segment
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.sets.manifest import audio_names, named_file
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, read_rows
from atr_moco_plugin.data.tables.segments import fragment, segment_of
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.search.names import part_of
from atr_moco_plugin.search.store import Recording
from atr_moco_plugin.search.walk import (
    TAR,
    Found,
    Notes,
    found_at,
    walk_tar,
    walk_tree,
)

# Of UTF-16, a suffix or the end of a line; file names with zero bytes between them are not so.
_UTF_16 = re.compile(rb"\.\0\w\0\w\0|\n\0")


@dataclass
class Listing:
    """What a folder, a tar, a list or a table has.

    Attributes:
        name: what was given, absolute.
        folder: what the names of its sounds are relative to, absolute: itself, the folder that it
            is in, or of a list or a table what ``relative_to`` says.
        found: its sounds, each once; read as it is asked for, once.
        covers: whether a recording of an index, by path and member, would be among ``found`` if it
            were there. What a list or a table does not name says nothing.
        notes: what was met beside sounds; complete when ``found`` has been read.
        is_list: whether it is a list or a table.
    """

    name: str
    folder: str
    found: Iterator[Found]
    covers: Callable[[str, str], bool]
    notes: Notes = field(default_factory=Notes)
    is_list: bool = False

    def has_sounds(self) -> bool:
        """Whether there is a sound."""
        first = next(self.found, None)
        if first is None:
            return False
        self.found = chain([first], self.found)
        return True


def list_sounds(
    source: str | os.PathLike[str],
    *,
    is_list: bool = False,
    relative_to: str | os.PathLike[str] | None = None,
    suffixes: Collection[str] = (),
) -> Listing:
    """The sounds that a source has.

    * A folder: every sound below it, also in its tars, see
      :func:`~atr_moco_plugin.search.walk.walk_tree`.
    * One sound, or a tar, such as a webdataset shard.
    * A table (CSV, TSV, JSON) with a column of files, and with ``start`` and ``end`` where rows are
      parts of files, as :func:`~atr_moco_plugin.data.sets.manifest.open_manifest` reads them;
      captions are not needed.
    * A list of files, one a line, or with zero bytes between them, as ``find -print0`` writes.

    Args:
        source: a path.
        is_list: whether it is a list of files.
        relative_to: the folder that names in a list or a table are relative to; that of the list
            or the table where it is None.
        suffixes: of sounds, beside :data:`~atr_moco_plugin.data.tables.file_names.AUDIO_SUFFIXES`.

    Returns:
        The listing. Nothing at the path is a folder without sounds.

    Raises:
        MissingFileError: if there is no list at the path.
        InputError: if it is a file of another kind, a list that is no text, or an empty name; of a
            row of a table that names no file, or a part of a tar, when ``found`` comes to it.
    """
    if not os.fspath(source):  # as of a variable of a shell that is not set
        raise InputError("The name of the folder is empty: give one, or . for this folder")
    path = os.path.realpath(expanded(source, "FOLDER"))
    known = frozenset(AUDIO_SUFFIXES) | {_dotted(suffix) for suffix in suffixes}
    notes = Notes()
    covers = _met_at(path, known)
    if relative_to is not None and not is_list and suffix_of(path) not in TABLE_SUFFIXES:
        raise InputError(f"{source}: is no list or table with paths; leave --relative-to out")
    if os.path.isdir(path) and is_list:
        raise InputError(f"{source}: is a folder; leave --list out to index what is in it")
    if not os.path.isfile(path):
        if os.path.exists(path) and not os.path.isdir(path) or is_list:
            raise MissingFileError(f"{source}: no such file or folder")
        found = walk_tree(path, known, notes) if os.path.isdir(path) else iter(())
        return Listing(path, path, found, covers, notes)
    suffix, folder = suffix_of(path), os.path.dirname(path)
    if not is_list and (suffix == TAR or suffix in known):
        return Listing(path, folder, found_at(path, known, notes), covers, notes)
    if relative_to is not None:
        folder = os.path.realpath(expanded(relative_to, "relative_to"))
    if is_list:
        found = _listed(_names(path), folder, known, notes)
    elif suffix in TABLE_SUFFIXES:
        found = _in_table(path, folder, known, notes)
    else:
        raise InputError(
            f"{source}: is neither a folder nor a sound nor a .tar nor a table "
            f"({', '.join(TABLE_SUFFIXES)}); give --list if it names a file on each line"
        )
    found = _once(found)
    return Listing(path, folder, found, lambda file, member: file in notes.missing, notes, True)


def open_recording(recording: Recording) -> FileSource:
    """What reads a recording of an index again: a file, a part of one or a member of a tar.

    Raises:
        MissingFileError: if the file is not there, or has no such member any more.
    """
    if not os.path.isfile(recording.path):
        raise MissingFileError(f"{recording.name}: no such file; index its folder again")
    if not recording.member:
        return recording.path
    part = part_of(recording.member)
    if part is not None:
        return Segment(recording.path, *part)
    state = os.stat(recording.path)
    found = _members_of(recording.path, state.st_size, state.st_mtime_ns).get(recording.member)
    if found is None:
        raise MissingFileError(f"{recording.name}: no such member; index the tar again")
    return found.source


@lru_cache(maxsize=8)
def _members_of(path: str, size: int, mtime_ns: int) -> dict[str, Found]:
    """The members of a tar; size and time are there so that a changed one is read again."""
    suffixes = _Any()
    return {found.member: found for found in walk_tar(path, suffixes, Notes())}


class _Any(frozenset[str]):
    """All suffixes."""

    def __contains__(self, item: object) -> bool:
        return True


def _met_at(root: str, suffixes: Collection[str]) -> Callable[[str, str], bool]:
    """Whether a recording of an index would be met at a path or below it, if it were there.

    One that is there under a hidden or an unusual name came by a list or with ``--suffix``: that it
    is passed over now does not say that it is gone.
    """
    below = root.rstrip(os.sep) + os.sep

    def met(path: str, member: str) -> bool:
        if not (path + os.sep).startswith(below) or part_of(member) is not None:
            return False
        usual = suffix_of(member or path) in suffixes
        hidden = f"{os.sep}." in path[len(below) - 1 :]
        return (usual and not hidden) or not os.path.lexists(path)

    return met


def _dotted(suffix: str) -> str:
    return f".{suffix.lower().lstrip('.')}"


def _names(path: str) -> Iterator[str]:
    """Lines of a list."""
    content = Path(path).read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or _UTF_16.search(content):
        raise InputError(f"{path}: is UTF-16; write the list in UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = content.split(b"\0") if b"\0" in content else content.split(b"\n")
    for line in lines:
        name = line if b"\0" in content else line.removesuffix(b"\r")
        if name.strip():
            yield os.fsdecode(name)


def _listed(
    names: Iterator[str], folder: str, suffixes: Collection[str], notes: Notes
) -> Iterator[Found]:
    for name in names:
        path = os.path.realpath(os.path.join(folder, name))
        if os.path.isdir(path):
            notes.problems.append((path, "is a folder, and a list names files"))
        elif not os.path.lexists(path):
            _miss(path, notes)
        else:
            # What a list names is wanted, whatever it is called.
            yield from found_at(path, {*suffixes, suffix_of(path)}, notes)


def _in_table(path: str, folder: str, suffixes: Collection[str], notes: Notes) -> Iterator[Found]:
    lookup = FileLookup()
    for number, row in enumerate(read_rows(path, captions=False), start=1):
        names, others = audio_names(row)
        if not names:
            there = {*column_names.AUDIO} & {*row}
            raise InputError(
                f"{path}: row {number} names no file; write one in the column "
                f"{column_names.AUDIO[0]}"
                + ("" if there else f" (its columns are {listed([str(x) for x in row], 5)})")
            )
        file = named_file(lookup, folder, names, others, f"{path}: row {number}")
        if file is None:
            _miss(os.path.realpath(os.path.join(folder, names[0])), notes)
            continue
        file = os.path.realpath(file)
        part = segment_of(row, f"{path}, row {number}")
        if part is not None and suffix_of(file) == TAR:
            raise InputError(
                f"{path}: row {number} has a start and an end, but names a .tar ({names[0]}), of "
                "whose members no parts are taken; leave both out, or name a file with one sound"
            )
        for sound in found_at(file, {*suffixes, suffix_of(file)}, notes):
            yield sound._replace(member=sound.member or fragment(part))


def _miss(path: str, notes: Notes) -> None:
    if path not in notes.missing:
        notes.missing.add(path)
        notes.problems.append((path, "no such file"))


def _once(found: Iterator[Found]) -> Iterator[Found]:
    seen: set[tuple[str, str]] = set()
    for sound in found:
        if sound.key not in seen:
            seen.add(sound.key)
            yield sound
