"""JSON files of WavCaps and of what is written in its form.

X. Mei et al., *WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset for
Audio-Language Multimodal Research*, TASLP 2024. It has no splits of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import Policy, assemble
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe, list_files, names_path
from atr_moco_plugin.data.opening.captions import CaptionTable, Recording, finish
from atr_moco_plugin.data.opening.folders import need_root
from atr_moco_plugin.data.tables.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.tables.rows import json_entries
from atr_moco_plugin.data.tables.segments import fragment, segment_of, starts_of
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import stable_digest

_SOURCE_COLUMNS = ("source", "dataset")
_Claim = tuple[Recording, str]


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

    A clip is a file, or a part of one (:func:`~.segments.segment_of`): the one that ``audio`` or
    ``wav`` names (the path as it is, else its last part anywhere in the audio folder), or the one
    named after the ``id``. A name that is there in several folders is looked for in the one whose
    name begins like the entry's ``source`` or like the JSON file's folder (``FreeSound/fsd.json``,
    ``FreeSound_flac/``). Its key is its ``id``, with several JSON files ``<file's stem>/<id>``;
    where several clips have one id, as numbers of two sources have, the source or the name of the
    audio is in it too.

    Raises:
        FileNotFoundError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if a file cannot be read, an entry lacks its id, a name fits several files, or
            two sources have one file.
    """
    if not 0 <= config.valid_fraction < 1:
        raise InputError(f"valid_fraction must be in [0, 1), not {config.valid_fraction}")
    if config.valid_fraction and config.split == "valid":
        raise InputError("split is 'valid' already; set valid_fraction to 0 or split to 'train'")
    root = need_root(config.root, "WavCaps")
    place = root if config.captions is None else Path(config.captions)
    table = _read(place)
    folder = (root.parent if root.is_file() else root) if config.audio is None else config.audio
    files = AudioFiles(folder, list_files(folder))
    parts = _split(table, config)
    claims: dict[str, _Claim] = {}
    sources = {
        split: [_find(files, item, claims) for item in part.recordings.values()]
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
    return _read(Path(place))


def _read(place: Path) -> CaptionTable:
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
    table = CaptionTable()
    stems = Counter(path.stem for path, _ in entries)
    for path, rows in entries:
        prefix = f"{path.stem}/" if len(entries) > 1 else ""
        if stems[path.stem] > 1:
            prefix = f"{path.relative_to(place).with_suffix('').as_posix()}/"
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or not _text(row.get("id")):
                raise InputError(f'{path}: entry {number} of "data" has no "id"; give each one')
            if not caption_columns(tuple(row)):
                raise InputError(
                    f'{path}: entry {number} of "data" has no "caption" or "caption_1"; it has '
                    f"{', '.join(map(repr, row))[:200]}"
                )
            table.add(_recording(row, prefix, os.fspath(path), number), row)
    return finish({"": table})[""]


def _recording(row: Mapping[str, object], prefix: str, place: str, number: int) -> Recording:
    name, column = _text(row["id"]), audio_column(tuple(row))
    # file_name is the title on Freesound where audio or wav is there as well.
    audio = _text(row.get("audio")) or _text(row.get("wav"))
    audio, source = audio or (_text(row[column]) if column else ""), _source(row)
    names = (audio, name) if audio else (name,)
    item = Recording(prefix + name, tuple(row_captions(row)), names, place=place, row=number)
    item.source = source
    item.segment = segment_of(row, item.where)
    item.starts = "" if item.segment else starts_of(row)
    what = os.path.normpath(audio) if audio else name
    item.identity = f"{prefix}{source and source + '/'}{what}{fragment(item.segment)}"
    return item


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _source(row: Mapping[str, object]) -> str:
    """The collection an entry comes from, where it says: ids are numbers of that."""
    return next((_text(row[name]).strip() for name in _SOURCE_COLUMNS if row.get(name)), "")


def _find(files: AudioFiles, item: Recording, claims: dict[str, _Claim]) -> str | None:
    for name in item.names:
        if os.path.isabs(name) and os.path.isfile(name):
            return name
        found = files.candidates(name)
        for hint in (item.source, os.path.basename(os.path.dirname(item.place))):
            if len(found) > 1 and hint:
                own = f"/{hint.casefold()}"
                found = [path for path in found if own in f"/{path.casefold()}"] or found
        folders = {os.path.dirname(path) for path in found}
        if len(folders) > 1:
            raise InputError(
                f"{files.folder}: the audio {name!r} of {item.where} may be {found[0]} or "
                f"{found[1]}; open the JSON files one by one, each with its audio folder"
            )
        if found:
            _claim(files, found[0], item, name, claims)
            return files.absolute(found[0])
    return None


def _claim(
    files: AudioFiles, path: str, item: Recording, name: str, claims: dict[str, _Claim]
) -> None:
    """Refuse a file that two entries may mean, unless both name it by its path."""
    other, other_name = claims.setdefault(path, (item, name))
    one_source = (other.place, other.source) == (item.place, item.source)
    if one_source and other_name == name:
        return
    for given in (name, other_name):
        if not names_path(given, path) or not (one_source or "/" in given):
            raise InputError(
                f"{files.folder}: {path} may be the audio of {other.where} ({other_name!r}) or of "
                f"{item.where} ({name!r}); put the audio of each source into a folder of its name, "
                "or give the path of each"
            )


def _split(table: CaptionTable, config: WavCapsConfig) -> Mapping[str, CaptionTable]:
    """All clips in one split, or a seeded share of them in ``valid``; the counts stay together."""
    keys: dict[str, str] = {}  # of a file: its parts stay together
    for item in table.recordings.values():
        file = _file_of(item)
        keys[file] = min(keys.get(file, item.key), item.key)
    order = sorted(
        keys, key=lambda file: (stable_digest("valid", config.seed, keys[file]), keys[file])
    )
    number = round(config.valid_fraction * len(order))
    if config.valid_fraction and len(order) > 1:
        number = min(max(number, 1), len(order) - 1)
    if not number:
        return {config.split: table}
    chosen = set(order[:number])
    valid = {k: item for k, item in table.recordings.items() if _file_of(item) in chosen}
    for identity in valid:
        del table.recordings[identity]
    return {config.split: table, "valid": CaptionTable(valid)}


def _file_of(item: Recording) -> str:
    return item.identity.removesuffix(fragment(item.segment))
