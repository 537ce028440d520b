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

    A file is taken for a row where it is the only one of that name, lies in a folder of the same
    name as the row's, where both have one, and belongs to no other row: of rows whose files were
    not fetched, ``dogs/001.wav`` is not ``cats/001.wav``.
    """

    def __init__(self, root: Path) -> None:
        self._files = AudioFiles(root)
        self._short = below_common_folder({path: path for path in self._files.paths})
        self._items: list[Captioned] = []

    def add(self, items: Sequence[Captioned]) -> None:
        """Recordings, whose ``path`` is that of the file where the table says."""
        self._items += items

    def find(self) -> None:
        """Set the ``path`` of those that have none."""
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
            found = [path for path in there if _in_one_folder(name, self._short[path])]
            if len(found) == 1:
                return self._files.absolute(found[0])
        return None


def _in_one_folder(name: str, path: str) -> bool:
    folders = {
        composed(os.path.basename(os.path.dirname(os.path.normpath(x.replace("\\", "/")))))
        for x in (name, path)
    }
    return len(folders - {"", ".", ".."}) < 2


def below_common_folder(inner: Mapping[str, str]) -> dict[str, str]:
    """Paths below the folders that all of them lie in."""
    common = list(os.path.commonprefix([short.split("/")[:-1] for short in inner.values()]))
    while common and common[-1].lower() in SPLIT_NAMES:
        common.pop()
    cut = len("/".join(common)) + 1 if common else 0
    return {path: short[cut:] for path, short in inner.items()}
