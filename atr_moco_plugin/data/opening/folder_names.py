"""Which folder a file of a given name may lie in, where it is not in the one that a table says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile

from atr_moco_plugin.data.opening.split_names import split_in_name
from atr_moco_plugin.data.tables.file_names import composed


class FolderNames:
    """Whether the folders in the names of a table are those of the files, and so tell them apart.

    ``dogs/001.wav`` that was not fetched is not ``cats/001.wav`` where a folder of the table is
    there. Where none is, as when all files have been put into one, folders tell nothing. Folders of
    splits never do, nor does the case of letters.

    Args:
        names: all that the table has, with their folders.
        paths: of all files.
    """

    def __init__(self, names: Iterable[str], paths: Iterable[str]) -> None:
        of_names = {place for name in names for place in _folders(name)[-1:]}
        places = [_folders(path) for path in paths] if of_names else []
        self._tell = any(not of_names.isdisjoint(x) for x in places)
        shared = takewhile(lambda place: place not in of_names, os.path.commonprefix(places))
        self._above = len(list(shared))  # folders that all files are in

    def may_be(self, name: str, path: str) -> bool:
        """Whether a name of the table may mean the file at one of the paths: it is in a folder of
        the innermost one's name, at any depth, or in none but those that all are in."""
        own, places = _folders(name)[-1:], _folders(path)[self._above :]
        return not self._tell or not own or not places or own[0] in places


def _folders(name: str) -> list[str]:
    """The folders of a file, the outermost first, without those that say nothing of what is in
    them."""
    return _telling(name.replace("\\", "/").rpartition("/")[0])


@lru_cache(maxsize=4096)  # many files are in one folder
def _telling(folder: str) -> list[str]:
    places = composed(folder).casefold().split("/")
    return [x for x in places if x not in ("", ".", "..") and split_in_name(x) is None]
