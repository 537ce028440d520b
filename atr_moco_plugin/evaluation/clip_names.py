"""The clip that somebody else's file means by a name."""

from __future__ import annotations

import os
from collections.abc import Sequence

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.tables.file_names import composed, stem_of
from atr_moco_plugin.errors import InputError


class ClipNames:
    """Clips by key, by file name, and by file name without its suffix, in this order.

    Folders in front of a name count in a key alone. Accents count the same however they are
    written.

    Args:
        clips: of a split.
        where: the file with the names, for messages.
    """

    def __init__(self, clips: Sequence[Clip], where: str) -> None:
        self._clips = clips
        self._where = where
        self._keys: dict[str, int] = {}
        self._names: dict[str, set[int]] = {}
        self._stems: dict[str, set[int]] = {}
        for number, clip in enumerate(clips):
            self._keys[composed(clip.key)] = number
            for name in {file_name(clip), _last(clip.key)}:
                self._names.setdefault(composed(name), set()).add(number)
                self._stems.setdefault(composed(stem_of(name)), set()).add(number)

    def find(self, name: str) -> int | None:
        """The number of the clip, None where no clip has the name.

        Raises:
            InputError: when several clips have it.
        """
        name = name.strip()
        if (number := self._keys.get(composed(name))) is not None:
            return number
        last = _last(name)
        found = self._names.get(composed(last)) or self._stems.get(composed(stem_of(last))) or set()
        if len(found) > 1:
            first, second = (self._clips[number].key for number in sorted(found)[:2])
            raise InputError(
                f"{self._where}: {name!r} may be the clip {first!r} or {second!r}; write the key."
            )
        return next(iter(found), None)


def file_name(clip: Clip) -> str:
    """The name of a clip's file without folders; the end of its key where it has no file."""
    source = clip.source
    if isinstance(source, FileSlice):
        return _last(source.name)
    if isinstance(source, Segment):
        source = source.path
    return _last(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else _last(clip.key)


def _last(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
