"""Names of audio files as text: suffixes, stems, folders, accents. Nothing here asks the disk."""

from __future__ import annotations

import os
import unicodedata

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

# Captions name the last five, which soundfile does not read, where the audio was converted.
_MEDIA_SUFFIXES = {*AUDIO_SUFFIXES, ".m4a", ".mp4", ".aac", ".webm", ".mkv"}


def suffix_of(name: str) -> str:
    """The suffix in lower case, with its dot: ``.wav`` of ``a/b.WAV``."""
    return os.path.splitext(name)[1].lower()


def without_suffix(path: str) -> str:
    """The path without a suffix of audio or video; every other dot stays."""
    suffix = suffix_of(path)
    return path[: -len(suffix)] if suffix in _MEDIA_SUFFIXES else path


def stem_of(name: str) -> str:
    """A file name without folders and without a suffix of audio or video."""
    return without_suffix(name.replace("\\", "/").rsplit("/", 1)[-1])


def names_path(name: str, path: str) -> bool:
    """Whether ``path`` ends in all of ``name``, with its folders; the suffixes may differ."""
    tail = os.path.normpath(name.replace("\\", "/")).lstrip("/")
    return f"/{without_suffix(path)}".endswith((f"/{without_suffix(tail)}", f"/{tail}"))


def composed(text: str) -> str:
    """The text with each accent and its letter as one character (NFC); macOS writes two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def sorted_by_suffix(paths: list[str]) -> list[str]:
    """Audio files in the order of their suffixes in :data:`AUDIO_SUFFIXES`."""
    return sorted(paths, key=lambda path: AUDIO_SUFFIXES.index(suffix_of(path)))
