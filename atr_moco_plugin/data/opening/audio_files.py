"""Audio files anywhere below a folder, found by the names that a captions file gives them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from atr_moco_plugin.data.opening.folder_names import FolderNames
from atr_moco_plugin.data.opening.split_names import split_in_name
from atr_moco_plugin.data.tables.file_names import (
    AUDIO_SUFFIXES,
    composed,
    sorted_by_suffix,
    stem_of,
    suffix_of,
    without_suffix,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.paths import spellings


def list_files(folder: str | os.PathLike[str]) -> list[str]:
    """All files below a folder as sorted paths relative to it, with ``/``; hidden ones left out.

    Links to folders are followed, each folder once. A file gives a list of its own name. A folder
    that cannot be listed, such as ``lost+found`` of a disk, is left out with a warning.
    """
    if os.path.isfile(folder):
        return [os.path.basename(folder)]
    found: list[str] = []
    entered: set[str] = set()
    stack = [("", os.fspath(folder))]
    while stack:
        prefix, place = stack.pop()
        real = os.path.realpath(place)
        if real in entered or not os.path.isdir(real):
            continue
        entered.add(real)
        with _entries(place, optional=bool(prefix)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    found.append(prefix + entry.name)
    return sorted(found)


def _entries(place: str, *, optional: bool) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
    try:
        return os.scandir(place)
    except OSError as ex:
        message = f"{place}: the folder cannot be listed ({ex.strerror}): "
        if not optional:
            raise InputError(f"{message}allow this user to read it") from ex
        warnings.warn(
            f"{message}what is in it is left out; allow this user to read it", stacklevel=3
        )
        return nullcontext(())


def describe_folder(folder: str | os.PathLike[str]) -> str:
    """What is in a folder, in words: ``found a.csv, train/``."""
    if not os.path.exists(folder):
        return "there is no such folder"
    if not os.path.isdir(folder):
        return "found a file"
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * _is_folder(entry) for entry in entries)
    shown = ", ".join(names[:8]) + (f", ... ({len(names):,} in all)" if len(names) > 8 else "")
    return f"found {shown}" if names else "found an empty folder"


class AudioFiles:
    """The audio files below a folder.

    Args:
        folder: where they are.
        files: what :func:`list_files` gives for it; ``None`` lists it.

    Attributes:
        folder: that folder.
        paths: the audio files, relative to it.
    """

    def __init__(self, folder: str | os.PathLike[str], files: Iterable[str] | None = None) -> None:
        self.folder = os.fspath(folder)
        files = list_files(folder) if files is None else files
        self.paths = [path for path in files if suffix_of(path) in AUDIO_SUFFIXES]
        self._by_name: dict[str, list[str]] = {}
        self._split_of_folder: dict[str, str | None] = {}
        for path in self.paths:
            name = path.rsplit("/", 1)[-1]
            for known in (name, stem_of(name)):
                self._by_name.setdefault(composed(known), []).append(path)

    def candidates(self, name: str) -> list[str]:
        """Relative paths of the files with that name, or with that stem and any audio suffix.

        The order is that of :data:`~atr_moco_plugin.data.tables.file_names.AUDIO_SUFFIXES`.

        Args:
            name: as on disk, or one of its :func:`~atr_moco_plugin.io.paths.spellings`. Where it
                has folders, files in such folders are preferred.
        """
        for spelling in spellings(name):
            tail = spelling.replace("\\", "/").removeprefix("./").lstrip("/")
            base = composed(tail.rsplit("/", 1)[-1])
            found = self._by_name.get(base) or self._by_name.get(stem_of(base))
            if found:
                break
        else:
            return []
        if len(found) == 1:
            return found
        found = sorted_by_suffix(found)
        if "/" not in tail:
            return found
        ending = "/" + without_suffix(tail)
        return [path for path in found if without_suffix(f"/{path}").endswith(ending)] or found

    def find(
        self,
        names: Iterable[str],
        split: str,
        *,
        other_splits: bool,
        copies: bool = False,
        folders: FolderNames | None = None,
    ) -> str | None:
        """Relative path of the first of ``names`` that is there for a split.

        Files in a folder named after the split come first, then files in folders that name no
        split, then, with ``other_splits``, files in folders of other splits. Only files that
        ``folders`` lets be a name's are.

        Raises:
            InputError: if the name fits files in two folders that come equally first, unless files
                of one name are ``copies``.
        """
        for name in names:
            fitting = (x for x in self.candidates(name) if not folders or folders.may_be(name, x))
            distances = {path: self._distance(path, split) for path in fitting}
            nearest = min(distances.values(), default=2)
            found = [path for path, distance in distances.items() if distance == nearest]
            if not found or (nearest == 2 and not other_splits):
                continue
            elsewhere = [p for p in found if os.path.dirname(p) != os.path.dirname(found[0])]
            if elsewhere and not copies:
                raise InputError(
                    f"{self.folder}: the audio {name!r} may be {found[0]} or {elsewhere[0]}; give "
                    "its folder in the captions file, or set audio to the folder of the one to use"
                )
            return found[0]
        return None

    def of_split(self, split: str) -> list[str]:
        """Relative paths of the files that are not in a folder of another split."""
        return [path for path in self.paths if self._distance(path, split) < 2]

    def absolute(self, path: str | None) -> str | None:
        """The path on disk of a relative one; ``None`` stays ``None``."""
        return None if path is None else os.path.join(self.folder, path)

    def _distance(self, path: str, split: str) -> int:
        """0 in a folder of the split, 1 in one of no split, 2 in one of another split."""
        folder = os.path.dirname(path)
        if folder not in self._split_of_folder:
            named = [found for part in folder.split("/") if (found := split_in_name(part))]
            self._split_of_folder[folder] = named[-1] if named else None
        found = self._split_of_folder[folder]
        return 1 if found is None else (0 if found == split else 2)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Not entry.is_dir(), which raises where a link leads to itself.
    return os.path.isdir(entry.path)
