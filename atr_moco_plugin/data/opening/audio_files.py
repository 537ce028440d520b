"""Audio files in folders: listed once, and found by the names that a captions file gives them."""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from atr_moco_plugin.data.opening.captions import split_name
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.paths import spellings

AUDIO_SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".opus",
    ".oga",
    ".mp3",
    ".aiff",
    ".aif",
    ".aifc",
    ".au",
    ".caf",
    ".w64",
    ".rf64",
)
"""Files that soundfile reads; of two files with one stem the suffix that comes first counts."""

# Not read by soundfile; captions name them where the audio was converted.
_OTHER_MEDIA = (".m4a", ".mp4", ".aac", ".webm", ".mkv")
_SUFFIX_RANK = {suffix: rank for rank, suffix in enumerate(AUDIO_SUFFIXES)}


def list_files(folder: str | os.PathLike[str]) -> list[str]:
    """All files below a folder as sorted paths relative to it, with ``/``; hidden ones left out.

    Links to folders are followed, each folder once. A file gives a list of its own name.
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
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    found.append(prefix + entry.name)
    return sorted(found)


def stem_of(name: str) -> str:
    """A file name without folders and without a media suffix; other dots stay."""
    return _without_suffix(name.replace("\\", "/").rsplit("/", 1)[-1])


def names_path(name: str, path: str) -> bool:
    """Whether ``path`` ends in all of ``name``, with its folders; the suffixes may differ."""
    tail = os.path.normpath(name.replace("\\", "/")).lstrip("/")
    return f"/{_without_suffix(path)}".endswith(f"/{_without_suffix(tail)}") or (
        f"/{_without_suffix(path)}".endswith(f"/{tail}")
    )


def describe(folder: str | os.PathLike[str]) -> str:
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
        files: what :func:`list_files` gives for it.

    Attributes:
        folder: that folder.
        paths: the audio files, relative to it.
    """

    def __init__(self, folder: str | os.PathLike[str], files: Iterable[str]) -> None:
        self.folder = os.fspath(folder)
        self.paths = [path for path in files if _suffix(path) in _SUFFIX_RANK]
        self._by_name: dict[str, list[str]] = {}
        self._splits: dict[str, str | None] = {}
        for path in self.paths:
            name = path.rsplit("/", 1)[-1]
            for known in (name, stem_of(name)):
                self._by_name.setdefault(composed(known), []).append(path)

    def candidates(self, name: str) -> list[str]:
        """Relative paths of the files with that name, or with that stem and any audio suffix; the
        suffix that comes first in :data:`AUDIO_SUFFIXES` first.

        Args:
            name: as on disk, or one of its :func:`~atr_moco_plugin.io.paths.spellings`. Where it has
                folders, files in such folders are preferred.
        """
        found: list[str] = []
        for spelling in spellings(name):
            tail = spelling.replace("\\", "/").removeprefix("./").lstrip("/")
            base = composed(tail.rsplit("/", 1)[-1])
            found = self._by_name.get(base) or self._by_name.get(stem_of(base), [])
            if found:
                break
        if len(found) > 1:
            found = sorted(found, key=lambda path: _SUFFIX_RANK[_suffix(path)])
        if "/" in tail and len(found) > 1:
            ending = "/" + _without_suffix(tail)
            exact = [path for path in found if _without_suffix(f"/{path}").endswith(ending)]
            return exact or found
        return found

    def find(
        self, names: Iterable[str], split: str, *, elsewhere: bool, copies: bool = False
    ) -> str | None:
        """Relative path of the first of ``names`` that is there for a split.

        Files in a folder named after the split come first, then those in folders that name no
        split, then, with ``elsewhere``, those of other splits.

        Raises:
            ValueError: if the name fits files in two folders that come equally first, unless files
                of one name are ``copies``.
        """
        for name in names:
            found = [
                path for path in self.candidates(name) if elsewhere or self._rank(path, split) < 2
            ]
            if found:
                first = min(found, key=lambda path: self._rank(path, split))
                if not copies:
                    self._check_only(name, first, found, split)
                return first
        return None

    def _check_only(self, name: str, first: str, found: list[str], split: str) -> None:
        rank, folder = self._rank(first, split), os.path.dirname(first)
        for path in found:
            if os.path.dirname(path) != folder and self._rank(path, split) == rank:
                raise InputError(
                    f"{self.folder}: the audio {name!r} may be {first} or {path}; give its folder "
                    "in the captions file, or set audio to the folder of the one to use"
                )

    def of_split(self, split: str) -> list[str]:
        """Relative paths of the files that are not in a folder of another split."""
        return [path for path in self.paths if self._rank(path, split) < 2]

    def absolute(self, path: str) -> str:
        """The path on disk of a relative one."""
        return os.path.join(self.folder, path)

    def _rank(self, path: str, split: str) -> int:
        """0 in a folder of the split, 1 in one of no split, 2 in one of another split."""
        folder = os.path.dirname(path)
        if folder not in self._splits:
            named = [found for part in folder.split("/") if (found := split_name(part))]
            self._splits[folder] = named[-1] if named else None
        found = self._splits[folder]
        return 1 if found is None else (0 if found == split else 2)


class Listings:
    """Looks up files by path; every folder is listed once, when it is first asked for."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def locate(self, folder: str, name: str) -> str | None:
        """The file that a table means by ``name``, relative to ``folder``: :meth:`find` for the
        first of :func:`~atr_moco_plugin.io.paths.spellings` that there is a file for."""
        for spelling in spellings(name):
            found = self.find(os.path.join(folder, spelling))
            if found is not None:
                return found
        return None

    def find(self, path: str) -> str | None:
        """``path`` if it is a file, else the audio file in its folder that is meant by it.

        Accents count as the same in both of their Unicode forms. A name without a suffix means the
        file with that stem and the suffix that comes first in :data:`AUDIO_SUFFIXES`. One with a
        suffix of audio means the only file with that stem and suffix in any case, else the only
        one with that stem.
        """
        folder, name = os.path.split(path)
        names = self._names.get(folder)
        if names is None:
            names = self._names[folder] = _file_names(folder)
        if name in names:
            return path
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for item in sorted(names):
                if _suffix(item) in _SUFFIX_RANK:
                    stems.setdefault(composed(stem_of(item)).strip(), []).append(item)
        stems = self._stems[folder]
        found = stems.get(composed(name).strip())
        if found is not None:
            found = sorted(found, key=lambda item: _SUFFIX_RANK[_suffix(item)])[:1]
        else:
            found = stems.get(composed(stem_of(name)).strip(), [])
            found = [item for item in found if _suffix(item) == _suffix(name)] or found
        return os.path.join(folder, found[0]) if len(found) == 1 else None


def composed(text: str) -> str:
    """The text with each accent and its letter as one character (NFC); macOS writes two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def match_renamed(wanted: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Pair names with files whose names download tools have changed.

    Names are compared after one change after the other: HTML entities resolved (``&#39;``), then
    also every run of punctuation and space as one and no letter case, then letters and digits
    alone. What one step pairs is not looked at again, and a step pairs only what is unambiguous:
    one name and one file that are left, and no other of the same form.

    Args:
        wanted: file names as captions list them, all different.
        files: relative paths of files that are not yet taken.

    Returns:
        Wanted name to file, for those that were paired.
    """
    pairs: dict[str, str] = {}
    left, free = list(wanted), list(files)
    for form in (_entities, _runs, _letters):
        names_of: dict[str, set[str]] = defaultdict(set)
        files_of: dict[str, list[str]] = defaultdict(list)
        for name in left:
            # An entity whose & ; and # were replaced leaves its number behind: owl_39_s.
            for resolve in (True, False):
                names_of[form(stem_of(name), resolve)].add(name)
        for path in free:
            files_of[form(stem_of(path), True)].append(path)
        found: dict[str, list[str]] = defaultdict(list)
        for key, names in names_of.items():
            if key and len(names) == 1 and len(files_of.get(key, ())) == 1:
                found[names.pop()].extend(files_of[key])
        pairs |= {name: paths[0] for name, paths in found.items() if len(set(paths)) == 1}
        taken = set(pairs.values())
        left = [name for name in left if name not in pairs]
        free = [path for path in free if path not in taken]
    return pairs


def _entities(stem: str, resolve: bool) -> str:
    while resolve and (plain := html.unescape(stem)) != stem:
        stem = plain
    return unicodedata.normalize("NFKC", stem)


def _runs(stem: str, resolve: bool) -> str:
    return re.sub(r"[\W_]+", "_", _entities(stem, resolve).casefold()).strip("_")


def _letters(stem: str, resolve: bool) -> str:
    return re.sub(r"[\W_]+", "", _entities(stem, resolve).casefold())


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if _is_file(entry))
    except (OSError, ValueError):
        # Not there, or a captions file gives what can be no folder: too long, with zero bytes.
        return frozenset()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # without asking the disk again, unless it is a link
    except OSError:  # a link to itself
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Not entry.is_dir(), which raises where a link leads to itself.
    return os.path.isdir(entry.path)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _without_suffix(path: str) -> str:
    suffix = _suffix(path)
    return path[: -len(suffix)] if suffix in _SUFFIX_RANK or suffix in _OTHER_MEDIA else path
