"""Audio files found by their paths, as a manifest gives them; folders are not searched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

from atr_moco_plugin.data.tables.file_names import (
    AUDIO_SUFFIXES,
    composed,
    sorted_by_suffix,
    stem_of,
    suffix_of,
)
from atr_moco_plugin.io.paths import spellings


class FileLookup:
    """Looks up files by path; every folder is listed once, when it is first asked for."""

    def __init__(self) -> None:
        names = self._names = cache(_file_names)
        self._by_stem = cache(lambda folder: _group_by_stem(names(folder)))

    def find_spelling(self, folder: str, name: str) -> str | None:
        """The file that a table means by ``name``, relative to ``folder``: :meth:`find` for the
        first of :func:`~atr_moco_plugin.io.paths.spellings` that there is a file for."""
        for spelling in spellings(name):
            found = self.find(os.path.join(folder, spelling))
            if found is not None:
                return found
        return None

    def find(self, path: str) -> str | None:
        """``path`` if it is a file, else the audio file in its folder that it means.

        Accents count as the same in both of their Unicode forms. A name without a suffix means the
        file with that stem and the suffix that comes first in
        :data:`~atr_moco_plugin.data.tables.file_names.AUDIO_SUFFIXES`. A name with a suffix of
        audio means the only file with that stem and suffix in any case, else the only file with
        that stem.
        """
        folder, name = os.path.split(path)
        if name in self._names(folder):
            return path
        by_stem = self._by_stem(folder)
        if found := by_stem.get(composed(name).strip()):
            return os.path.join(folder, sorted_by_suffix(found)[0])
        found = by_stem.get(composed(stem_of(name)).strip(), [])
        found = [item for item in found if suffix_of(item) == suffix_of(name)] or found
        return os.path.join(folder, found[0]) if len(found) == 1 else None


def _group_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        if suffix_of(name) in AUDIO_SUFFIXES:
            groups.setdefault(composed(stem_of(name)).strip(), []).append(name)
    return groups


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if _is_file(entry))
    except (OSError, ValueError):
        # Not there, or a name that no folder can have: too long, or with zero bytes.
        return frozenset()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # without asking the disk again, unless it is a link
    except OSError:  # a link to itself
        return False
