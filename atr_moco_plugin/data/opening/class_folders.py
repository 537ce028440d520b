"""Folders that stand for classes: the recordings in them, and their names in words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.data.opening.audio_files import describe_folder
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES
from atr_moco_plugin.data.tables.file_names import composed
from atr_moco_plugin.errors import MissingFileError, listed

# "101 - Dog", "003_rain": a number of a list. "2_stroke_engine" and "3-door car" begin otherwise.
_LIST_NUMBER = re.compile(r"(0\d+|\d{3,})[\s._-]+(?=\S)")
_CAPITAL_WITHIN = re.compile(r"(?<=[a-z])(?=[A-Z])")


def words_of_name(name: str) -> str:
    """The name of a folder as words: ``dog_bark``, ``Dog-Bark`` and ``DogBark`` are ``dog bark``.

    Underscores, hyphens and points become spaces, a capital within a word begins a new one, and a
    number of a list before the name goes (``101 - Dog`` is ``dog``). What is left is in lower case.

    Returns:
        Words, or digits alone where the name is a number; empty if nothing is left.
    """
    name = composed(name)
    words = (
        _LIST_NUMBER.sub("", name.strip(), count=1) if _LIST_NUMBER.match(name.strip()) else name
    )
    words = _CAPITAL_WITHIN.sub(" ", words)
    return " ".join(re.sub(r"[\s._-]+", " ", words).split()).lower()


def class_folders(root: Path, paths: Sequence[str]) -> dict[str, tuple[str | None, str]]:
    """The split and the class of each recording: the names of folders above it.

    ``dog_bark/012.wav`` is of the class ``dog_bark``, and so is ``animals/dog_bark/012.wav``. Where
    all folders in ``root`` are called like splits, ``train/dog_bark/012.wav`` is in that split.
    Files that lie in ``root`` itself have no class and are left out, with a warning.

    Args:
        root: the folder, for messages.
        paths: of the audio files below it, relative to it.

    Returns:
        Path to its split, ``None`` where folders name none, and the name of its folder.

    Raises:
        MissingFileError: if no recording is in a folder of a class.
    """
    within = [path for path in paths if "/" in path]
    tops = {path.split("/", 1)[0].lower() for path in within}
    given = bool(tops) and tops <= SPLIT_NAMES.keys()
    if given:
        within = [path for path in within if path.count("/") > 1]
    if not within:
        raise MissingFileError(
            f"{root}: no folder of recordings: looked for audio/ with meta/esc50.csv, or for "
            f"a folder for each class, such as dog_bark/012.wav, {describe_folder(root)}"
        )
    if len(within) < len(paths):
        kept = set(within)
        loose = [path for path in paths if path not in kept]
        warnings.warn(
            f"{root}: {len(loose):,} of {len(paths):,} recordings are in no folder of a class, and "
            f"left out: {listed(loose)}",
            stacklevel=5,
        )
    found: dict[str, tuple[str | None, str]] = {}
    for path in within:
        folders = path.split("/")[:-1]
        found[path] = (SPLIT_NAMES[folders[0].lower()] if given else None, folders[-1])
    return found
