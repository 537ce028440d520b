"""The clip that somebody else's file means by a name."""

from __future__ import annotations

import os
from collections.abc import Iterable

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.folder_names import FolderNames
from atr_moco_plugin.data.tables.file_names import composed, stem_of
from atr_moco_plugin.errors import InputError


class ClipNames:
    """Clips by key, by file name, and by file name without its suffix, in this order.

    A clip in another folder is not meant
    (:class:`~atr_moco_plugin.data.opening.folder_names.FolderNames`). Accents count the same
    however they are written.

    Args:
        names: of each clip its key, and the path of its file.
        where: the file that is read, for messages.
        asked: all names that it has.
    """

    def __init__(self, names: Iterable[tuple[str, str]], where: str, asked: Iterable[str]) -> None:
        self._where = where
        self._shown: list[str] = []
        self._paths: list[str] = []
        self._keys: dict[str, set[int]] = {}
        self._names: dict[str, set[int]] = {}
        self._stems: dict[str, set[int]] = {}
        for number, of_clip in enumerate(names):
            self._shown.append(of_clip[0])
            self._paths.append(of_clip[1])
            self._keys.setdefault(composed(of_clip[0]), set()).add(number)
            for name in {_last(name) for name in of_clip}:
                self._names.setdefault(composed(name), set()).add(number)
                self._stems.setdefault(composed(stem_of(name)), set()).add(number)

        self._folders = FolderNames(asked, self._paths)

    @classmethod
    def of(cls, clips: Iterable[Clip], where: str, asked: Iterable[str]) -> ClipNames:
        """The names of the clips of a data set."""
        return cls(((clip.key, _path(clip)) for clip in clips), where, asked)

    def find(self, name: str) -> int | None:
        """The number of the clip, None where no clip has the name.

        Raises:
            InputError: when several clips have it.
        """
        name = name.strip()
        if not name:
            return None
        last = _last(name)
        found = (
            self._keys.get(composed(name))
            or self._in_its_folder(name, self._names.get(composed(last), set()))
            or self._in_its_folder(name, self._stems.get(composed(stem_of(last)), set()))
        )
        if len(found) > 1:
            first, second = (self._shown[number] for number in sorted(found)[:2])
            raise InputError(
                f"{self._where}: {name!r} may be the clip {first!r} or {second!r}; write the key."
            )
        return next(iter(found), None)

    def _in_its_folder(self, name: str, clips: set[int]) -> set[int]:
        return {clip for clip in clips if self._folders.may_be(name, self._paths[clip])}


def file_name(clip: Clip) -> str:
    """The name of a clip's file without folders; the end of its key where it has no file."""
    return _last(_path(clip))


def _path(clip: Clip) -> str:
    """Of a clip's file; its key where it has none."""
    source = clip.source
    if isinstance(source, FileSlice):
        return source.name
    if isinstance(source, Segment):
        source = source.path
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else clip.key


def _last(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
