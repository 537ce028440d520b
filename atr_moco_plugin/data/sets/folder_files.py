"""Files of a folder that lie elsewhere than its table says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from atr_moco_plugin.data.opening.audio_files import AudioFiles
from atr_moco_plugin.data.opening.captions import Captioned
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES
from atr_moco_plugin.data.tables.file_names import composed


class FilesBelow:
    """Finds what lies elsewhere below the root than a table says, by the names of files.

    A file is taken for a row where it is the only one of that name and belongs to no other row.
    Where rows are in several folders, it also lies in a folder of the same name, or in one of a
    split or of all files: ``dogs/001.wav`` that was not fetched is not ``cats/001.wav``.
    """

    def __init__(self, root: Path) -> None:
        self._files = AudioFiles(root)
        self._short = below_common_folder({path: path for path in self._files.paths})
        self._items: list[Captioned] = []
        self._folders_count = True

    def add(self, items: Sequence[Captioned]) -> None:
        """Recordings, whose ``path`` is that of the file where the table says."""
        self._items += items

    def find(self) -> None:
        """Set the ``path`` of those that have none."""
        folders = {_folder_of(name) for item in self._items for name in item.names}
        self._folders_count = len(folders - {""}) > 1
        names_of: dict[str, set[str]] = defaultdict(set)
        for item in self._items:
            if item.path is not None:
                names_of[os.path.realpath(item.path)].add("")
        found = {}
        for at, item in enumerate(self._items):
            if item.path is None and (path := self._only_file(item)) is not None:
                found[at] = path
                names_of[os.path.realpath(path)].add(item.names[0])
        for at, path in found.items():
            if len(names_of[os.path.realpath(path)]) == 1:
                self._items[at].path = path

    def _only_file(self, item: Captioned) -> str | None:
        for name in item.names:
            there = self._files.candidates(name)
            found = [path for path in there if self._may_be(name, path)]
            if len(found) == 1:
                return self._files.absolute(found[0])
        return None

    def _may_be(self, name: str, path: str) -> bool:
        folders = {_folder_of(name), _folder_of(self._short[path])}
        return not self._folders_count or len(folders - {""}) < 2


def _folder_of(name: str) -> str:
    """The folder that a file is in; empty where it says nothing of what is in it."""
    place = os.path.dirname(os.path.normpath(name.replace("\\", "/")))
    folder = composed(os.path.basename(place))
    return "" if folder in (".", "..") or folder.lower() in SPLIT_NAMES else folder


def below_common_folder(inner: Mapping[str, str]) -> dict[str, str]:
    """Paths below the folders that all of them lie in."""
    common = list(os.path.commonprefix([short.split("/")[:-1] for short in inner.values()]))
    while common and common[-1].lower() in SPLIT_NAMES:
        common.pop()
    cut = len("/".join(common)) + 1 if common else 0
    return {path: short[cut:] for path, short in inner.items()}
