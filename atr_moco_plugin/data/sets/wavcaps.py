"""WavCaps, and other data sets in JSON files of its form.

X. Mei et al., *WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset for
Audio-Language Multimodal Research*, TASLP 2024. It has no splits of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.config import in_range
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import OpeningConfig, assemble
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder, list_files
from atr_moco_plugin.data.opening.caption_folder import required_root
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.tables.column_names import COLLECTIONS
from atr_moco_plugin.data.tables.columns import (
    audio_column,
    caption_columns,
    cell_as_is,
    cell_text,
    row_captions,
)
from atr_moco_plugin.data.tables.file_names import names_path, stem_of
from atr_moco_plugin.data.tables.rows import check_key_of_rows, json_entries
from atr_moco_plugin.data.tables.segments import fragment, place_note, segment_of
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import stable_digest


@dataclass(frozen=True)
class WavCapsConfig(OpeningConfig):
    """How to open WavCaps-style JSON files.

    Attributes:
        root: the folder with JSON files and audio, both at any depth, or one JSON file.
        captions: one JSON file or a folder of them, if they are not in ``root``.
        audio: the folder of the audio, if it is not in ``root``.
        name: the data set's, part of every clip id; give two different data sets two names.
        split: the split of all clips that ``valid_fraction`` does not take.
        valid_fraction: share of the recordings that makes the split ``valid``.
        seed: decides which recordings these are.
    """

    root: Path | None = None
    captions: Path | None = None
    audio: Path | None = None
    name: str = "wavcaps"
    split: str = "train"
    valid_fraction: float = 0.0
    seed: int = 0

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "valid_fraction", least=0, below=1)
        if self.valid_fraction and self.split == "valid":
            yield "split is 'valid' already; set valid_fraction to 0 or split to 'train'"


def open_wavcaps(config: WavCapsConfig) -> AudioTextDataset:
    """Open ``{"data": [{"id", "caption" or "caption_1", ..., "audio" or "wav"}, ...]}``.

    A clip is a file, or a part of one (:func:`~.segments.segment_of`): the file that ``audio`` or
    ``wav`` names (the path as it is, else its last part anywhere in the audio folder), or the file
    named after the ``id``. A name that is there in several folders is looked for in the folder
    whose name begins like the entry's ``source`` or like the JSON file's folder
    (``FreeSound/fsd.json``, ``FreeSound_flac/``). The clip's key is its ``id``, with several JSON
    files ``<file's stem>/<id>``. Where several clips have one id, as numbers of two sources have,
    the source or the name of the audio is in the key too.

    Raises:
        MissingFileError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        InputError: if a file cannot be read, an entry lacks its id, a name fits several files, or
            two sources have one file.
    """
    root = required_root(config.root, "WavCaps")
    table = _read(root if config.captions is None else config.captions)
    folder = root.parent if root.is_file() else root
    audio = AudioFiles(folder if config.audio is None else config.audio)
    _find_audio(table, audio)
    return assemble(config.name, split_recordings(table, config), audio.folder, config)


def read_wavcaps_captions(place: str | os.PathLike[str]) -> CaptionTable:
    """The captions alone, without audio and splits, as :func:`open_wavcaps` reads them.

    Args:
        place: one JSON file, or a folder with JSON files at any depth.

    Raises:
        MissingFileError, InputError: see :func:`open_wavcaps`.
    """
    return _read(Path(place))


def _read(place: Path) -> CaptionTable:
    paths = [place]
    if not place.is_file():
        paths = [place / name for name in list_files(place) if name.lower().endswith(".json")]
    files = {path: rows for path in paths if (rows := json_entries(path)) is not None}
    if not files:
        for path in paths:
            check_key_of_rows(path)
        raise MissingFileError(
            f"{place}: no WavCaps-style captions there: looked for .json files with "
            f'{{"data": [{{"id": ..., "caption": ..., "audio": ...}}]}}, {describe_folder(place)}; '
            "set captions to the JSON file"
        )
    table = CaptionTable()
    stems = Counter(path.stem for path in files)
    for path, rows in files.items():
        prefix = f"{path.stem}/" if len(files) > 1 else ""
        if stems[path.stem] > 1:
            prefix = f"{path.relative_to(place).with_suffix('').as_posix()}/"
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or not cell_as_is(row.get("id")):
                raise InputError(f'{path}: entry {number} of "data" has no "id"; give each one')
            if not caption_columns(tuple(row)):
                raise InputError(
                    f'{path}: entry {number} of "data" has no "caption" or "caption_1"; it has '
                    f"{', '.join(map(repr, row))[:200]}"
                )
            table.add(_recording(row, prefix, path, number), row)
    assign_keys({"": table})
    return table


def _recording(row: Mapping[str, object], prefix: str, file: Path, number: int) -> Captioned:
    filled = (column for column in ("audio", "wav") if cell_as_is(row.get(column)))
    name, column = cell_as_is(row["id"]), next(filled, audio_column(tuple(row)))
    audio = cell_as_is(row[column]) if column else ""
    # On Freesound, whose files are called by their ids, file_name is the title.
    titles = (audio,) if audio and column in ("file_name", "filename") else ()
    names = (audio, name) if audio and not titles else (name,)
    item = Captioned(prefix + name, tuple(row_captions(row)), names, os.fspath(file), number)
    item.other_names = titles
    # Ids are numbers within a collection.
    collections = (cell_text(row[column]) for column in COLLECTIONS if row.get(column))
    item.collection = next(collections, "")
    item.segment = segment_of(row, item.where)
    item.place_note = "" if item.segment else place_note(row)
    within = prefix + (f"{item.collection}/" if item.collection else "")
    item.identity = within + (os.path.normpath(audio) if audio else name) + fragment(item.segment)
    return item


def _find_audio(table: CaptionTable, audio: AudioFiles) -> None:
    """Set the path of every recording whose audio is there."""
    claims: dict[str, tuple[Captioned, str]] = {}
    taken = {name for item in table.recordings.values() for name in item.names}
    for item in table.recordings.values():
        # A title that is the id of another entry names that one's file.
        titles = [x for x in item.other_names if not ({x, stem_of(x)} & taken) - {*item.names}]
        for name in (*item.names, *titles):
            if os.path.isabs(name) and os.path.isfile(name):
                item.path = name
            elif (found := _find_one(audio, item, name)) is not None:
                _check_claim(audio, found, item, name, claims)
                item.path = audio.absolute(found)
            if item.path is not None:
                break
        for title in item.other_names:
            _check_title(audio, item, title)


def _check_title(audio: AudioFiles, item: Captioned, title: str) -> None:
    """Refuse an entry whose id has one file, and whose title names another to the letter."""
    named = [path for path in audio.candidates(title) if names_path(title, path)]
    for path in named:
        exact = os.path.basename(path) == os.path.basename(title.replace("\\", "/"))
        if exact and item.path not in (None, audio.absolute(path)):
            raise InputError(
                f"{item.where}: its id has the file {item.path}, and its file_name {path}: call "
                "the column audio, or leave it out"
            )


def _find_one(audio: AudioFiles, item: Captioned, name: str) -> str | None:
    found = audio.candidates(name)
    for hint in (item.collection, os.path.basename(os.path.dirname(item.file))):
        if len(found) > 1 and hint:
            own = f"/{hint.casefold()}"
            found = [path for path in found if own in f"/{path.casefold()}"] or found
    if len({os.path.dirname(path) for path in found}) > 1:
        raise InputError(
            f"{audio.folder}: the audio {name!r} of {item.where} may be {found[0]} or {found[1]}; "
            "open the JSON files one by one, each with its audio folder"
        )
    return found[0] if found else None


def _check_claim(
    audio: AudioFiles,
    path: str,
    item: Captioned,
    name: str,
    claims: dict[str, tuple[Captioned, str]],
) -> None:
    """Refuse a file that two entries may mean, unless both name it by its path."""
    other, other_name = claims.setdefault(path, (item, name))
    one_source = (other.file, other.collection) == (item.file, item.collection)
    if one_source and other_name == name:
        return
    for given in (name, other_name):
        if not names_path(given, path) or not (one_source or "/" in given):
            raise InputError(
                f"{audio.folder}: {path} may be the audio of {other.where} ({other_name!r}) or of "
                f"{item.where} ({name!r}); put the audio of each source into a folder of its name, "
                "or give the path of each"
            )


def split_recordings(table: CaptionTable, config: WavCapsConfig) -> Mapping[str, CaptionTable]:
    """All clips in one split, or a seeded share of them in ``valid``; the counts stay together."""
    keys: dict[str, str] = {}  # by file, whose parts stay in one split
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


def _file_of(item: Captioned) -> str:
    return item.identity.removesuffix(fragment(item.segment))
