"""JSON files of WavCaps and of what is written in its form.

X. Mei et al., *WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset for
Audio-Language Multimodal Research*, TASLP 2024. It has no splits of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.captions import CaptionTable
from atr_moco_plugin.data.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.files import AudioFiles, describe, list_files
from atr_moco_plugin.data.layouts import need_root
from atr_moco_plugin.data.opening import Policy, assemble
from atr_moco_plugin.data.tables import json_entries
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import stable_digest


@dataclass(frozen=True)
class WavCapsConfig(Policy):
    """How to open WavCaps-style JSON files.

    Attributes:
        root: the folder with JSON files and audio, both at any depth, or one JSON file.
        captions: one JSON file or a folder of them, if they are not in ``root``.
        audio: the folder of the audio, if it is not in ``root``.
        name: the data set's, part of every clip id; give two different data sets two names.
        split: the split all clips are in, but for those of ``valid_fraction``.
        valid_fraction: share of the recordings that makes the split ``valid``.
        seed: of the choice of those.
    """

    root: Path | None = None
    captions: Path | None = None
    audio: Path | None = None
    name: str = "wavcaps"
    split: str = "train"
    valid_fraction: float = 0.0
    seed: int = 0


def open_wavcaps(config: WavCapsConfig) -> AudioTextDataset:
    """Open ``{"data": [{"id", "caption" or "caption_1", ..., "audio" or "wav"}, ...]}``.

    A clip's key is its ``id``, with several JSON files ``<file's stem>/<id>``. Its audio is the
    file that ``audio`` or ``wav`` names (the path as it is, else its last part anywhere in the
    audio folder), or the one named after the ``id``. A name that is there in several folders is
    looked for in the one whose name begins like the JSON file's folder (``FreeSound/fsd.json``,
    ``FreeSound_flac/``). Entries of one id are one clip.

    Raises:
        FileNotFoundError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if a file cannot be read, an entry lacks its id, or a name fits several files.
    """
    if not 0 <= config.valid_fraction < 1:
        raise InputError(f"valid_fraction must be in [0, 1), not {config.valid_fraction}")
    if config.valid_fraction and config.split == "valid":
        raise InputError("split is 'valid' already; set valid_fraction to 0 or split to 'train'")
    root = need_root(config.root, "WavCaps")
    place = root if config.captions is None else Path(config.captions)
    table, origins = _read(place)
    folder = (root.parent if root.is_file() else root) if config.audio is None else config.audio
    files = AudioFiles(folder, list_files(folder))
    parts = _split(table, config)
    sources = {
        split: [_find(files, item.names, origins[item.key]) for item in part.recordings.values()]
        for split, part in parts.items()
    }
    return assemble(config.name, parts, sources, folder, config)


def read_wavcaps_captions(place: str | os.PathLike[str]) -> CaptionTable:
    """The captions alone, without audio and splits, as :func:`open_wavcaps` reads them.

    Args:
        place: one JSON file, or a folder with JSON files at any depth.

    Raises:
        FileNotFoundError, ValueError: see :func:`open_wavcaps`.
    """
    return _read(Path(place))[0]


def _read(place: Path) -> tuple[CaptionTable, dict[str, Path]]:
    """The table, and the JSON file each clip comes from."""
    if place.is_file():
        loaded = [(place, json_entries(place))]
    else:
        paths = [place / name for name in list_files(place) if name.lower().endswith(".json")]
        loaded = [(path, json_entries(path)) for path in paths]
    entries = [(path, rows) for path, rows in loaded if rows is not None]
    if not entries:
        raise MissingFileError(
            f"{place}: no WavCaps-style captions there: looked for .json files with "
            f'{{"data": [{{"id": ..., "caption": ..., "audio": ...}}]}}, {describe(place)}; set '
            "captions to the JSON file"
        )
    table, origins = CaptionTable(), {}
    for path, rows in entries:
        prefix = f"{path.stem}/" if len(entries) > 1 else ""
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or not _text(row.get("id")):
                raise InputError(f'{path}: entry {number} of "data" has no "id"; give each one')
            if not caption_columns(tuple(row)):
                raise InputError(
                    f'{path}: entry {number} of "data" has no "caption" or "caption_1"; it has '
                    f"{', '.join(map(repr, row))[:200]}"
                )
            name, key = _text(row["id"]), prefix + _text(row["id"])
            column = audio_column(tuple(row))
            audio = _text(row[column]) if column else ""
            table.add(key, row_captions(row), (audio, name) if audio else (name,), row)
            origins[key] = path
    return table.finish(), origins


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _find(files: AudioFiles, names: tuple[str, ...], origin: Path) -> str | None:
    for name in names:
        if os.path.isabs(name) and os.path.isfile(name):
            return name
        found = files.candidates(name)
        if len(found) > 1:
            own = origin.parent.name.casefold()
            found = [path for path in found if f"/{own}" in f"/{path.casefold()}"] or found
        folders = {os.path.dirname(path) for path in found}
        if len(folders) > 1:
            raise InputError(
                f"{files.folder}: the audio {name!r} of {origin} may be {found[0]} or {found[1]}; "
                "open the JSON files one by one, each with its audio folder"
            )
        if found:
            return files.absolute(found[0])
    return None


def _split(table: CaptionTable, config: WavCapsConfig) -> Mapping[str, CaptionTable]:
    """All clips in one split, or a seeded share of them in ``valid``; the counts stay together."""
    keys = sorted(table.recordings, key=lambda key: (stable_digest("valid", config.seed, key), key))
    number = round(config.valid_fraction * len(keys))
    if config.valid_fraction and len(keys) > 1:
        number = min(max(number, 1), len(keys) - 1)
    if not number:
        return {config.split: table}
    chosen = set(keys[:number])
    valid = {key: item for key, item in table.recordings.items() if key in chosen}
    for key in chosen:
        del table.recordings[key]
    return {config.split: table, "valid": CaptionTable(valid)}
