"""The clip that somebody else's file means by a name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.tables.file_names import composed, names_path, stem_of
from atr_moco_plugin.errors import InputError


class ClipNames:
    """Clips by key, by file name, and by file name without its suffix, in this order.

    Where the name that is looked for and a name of the clip have folders, these must agree as far
    as both go: ``cat/1.wav`` is not ``/sounds/dog/1.wav``. Accents count the same however they are
    written.

    Args:
        names: of each clip its key, and other names that its file has.
        where: the file that is read, for messages.
    """

    def __init__(self, names: Iterable[Sequence[str]], where: str) -> None:
        self._where = where
        self._shown: list[str] = []
        self._of_clip: list[list[str]] = []
        self._keys: dict[str, set[int]] = {}
        self._names: dict[str, set[int]] = {}
        self._stems: dict[str, set[int]] = {}
        for number, of_clip in enumerate(names):
            self._shown.append(of_clip[0])
            paths = [_path(name) for name in of_clip]
            self._of_clip.append([path for path in paths if "/" in path] or paths)
            self._keys.setdefault(composed(of_clip[0]), set()).add(number)
            for name in {_last(name) for name in of_clip}:
                self._names.setdefault(composed(name), set()).add(number)
                self._stems.setdefault(composed(stem_of(name)), set()).add(number)

    @classmethod
    def of(cls, clips: Iterable[Clip], where: str) -> ClipNames:
        """The names of the clips of a data set."""
        return cls(((clip.key, file_name(clip)) for clip in clips), where)

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
        """Those of some clips whose folders do not contradict the ones in front of a name."""
        path = _path(name)
        return {
            clip
            for clip in clips
            if any(names_path(path, x) or names_path(x, path) for x in self._of_clip[clip])
        }


def file_name(clip: Clip) -> str:
    """The name of a clip's file without folders; the end of its key where it has no file."""
    source = clip.source
    if isinstance(source, FileSlice):
        return _last(source.name)
    if isinstance(source, Segment):
        source = source.path
    return _last(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else _last(clip.key)


def _path(name: str) -> str:
    """A name to compare folders of: without ``/``, ``./`` and ``../`` in front."""
    return re.sub(r"^(\.{0,2}/)+", "", composed(name).replace("\\", "/"))


def _last(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
