"""Files of a folder that lie elsewhere than its table says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.data.opening.audio_files import AudioFiles
from atr_moco_plugin.data.opening.captions import Captioned
from atr_moco_plugin.data.opening.folder_names import FolderNames
from atr_moco_plugin.data.tables.file_names import composed, without_suffix


def find_moved(root: Path, items: Sequence[Captioned]) -> None:
    """Set the ``path`` of recordings that have none by the names of the files below a folder.

    A file is taken for a row where it is the only one of that name and belongs to no row of another
    name. A name without a suffix is no other one.
    One of another folder is not taken (:class:`~.folder_names.FolderNames`).

    Args:
        root: the folder.
        items: of all its tables; a ``path`` is that of the file where the table says.
    """
    files = AudioFiles(root)
    folders = FolderNames((name for item in items for name in item.names), files.paths)

    def only_file(item: Captioned) -> str | None:
        for name in item.names:
            found = [x for x in files.candidates(name) if folders.may_be(name, x)]
            if len(found) == 1:
                return files.absolute(found[0])
        return None

    moved = {at: only_file(item) for at, item in enumerate(items) if item.path is None}
    names_of: dict[str, set[str]] = defaultdict(set)
    for at, item in enumerate(items):
        if path := item.path or moved[at]:
            names_of[os.path.realpath(path)].add("" if item.path else composed(item.names[0]))
    for at, path in moved.items():
        if path and _is_one(names_of[os.path.realpath(path)]):
            items[at].path = path


def _is_one(names: set[str]) -> bool:
    stems = {without_suffix(name) for name in names}
    return len(stems) == 1 and len(names - stems) <= 1
