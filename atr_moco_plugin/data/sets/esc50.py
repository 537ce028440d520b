"""ESC-50 with class descriptions as captions: many clips to few captions.

K. J. Piczak, *ESC: Dataset for Environmental Sound Classification*, ACM Multimedia 2015 (the clips
are CC BY-NC 3.0). A clip is relevant to every caption of its class.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.audio_files import describe_folder
from atr_moco_plugin.data.opening.caption_folder import required_root, required_value
from atr_moco_plugin.data.opening.class_folders import words_of_name
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.opening.joining import check_shared_clips
from atr_moco_plugin.data.opening.splitting import choose_sources
from atr_moco_plugin.data.opening.unused_options import refuse_unused
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.data.tables.encoding import read_json
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import has_words

PHRASES_FILE = Path(__file__).with_name("esc50_phrases.json")
"""ESC-50 class name to three captions; used where a data set's folder has no table of its own."""

_INDEXES = ("meta/esc50.csv", "esc50_16k.csv")
_NEEDED = ("filename", "fold", "category", "src_file")
_CLIP_SECONDS = 5.0


@dataclass(frozen=True)
class Esc50Config(Config):
    """How to open ESC-50.

    Attributes:
        root: the folder with ``audio/`` and ``meta/esc50.csv`` (the official layout) or
            ``esc50_16k.csv``.
        split: ``"fold"`` tests on one official fold; ``"bench"`` takes train and test from the
            index's ``bench_split`` column; ``"auto"`` is ``"bench"`` where that column is there.
        test_fold: the fold tested on by ``"fold"``; refused beside ``bench_split``.
        valid_fraction: share of the training clips kept for validation, by class and source.
        seed: decides which sources are for validation.
        strict: make missing audio an error; otherwise such clips are left out and counted.
        allow_shared_audio: let a recording be in two splits, and count such clips.
        exclude: a text file with the keys of clips that are left out, one a line.
        cache: keep decoded audio in memory.
    """

    root: Path | None = None
    split: Literal["auto", "bench", "fold"] = "auto"
    test_fold: int = 4
    valid_fraction: float = 0.1
    seed: int = 0
    strict: bool = False
    allow_shared_audio: bool = False
    exclude: Path | None = None
    cache: bool = False

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "valid_fraction", least=0, below=1)


def open_esc50(config: Esc50Config, *, of_scenes: bool = False) -> AudioTextDataset:
    """Open ESC-50 with the splits ``train``, ``valid`` and ``test``.

    No Freesound recording (``src_file``) is in two splits: validation sources are taken out of
    train, and training clips of a source that is also in test (four sources of the official folds)
    are left out. Captions come from ``class_phrases.json`` in ``root`` where there is one, else
    from this package's own table; the wordings of a class share one caption id.

    Args:
        config: the options.
        of_scenes: whether scenes are made of it, which have no option ``split``; for messages.

    Raises:
        MissingFileError: if ``root`` has neither layout, or audio is missing under ``strict``.
        InputError: if the index lacks a column, class or fold that is needed, its ``bench_split``
            counts and has another value than train and test or a ``test_fold`` beside it, a file is
            in it twice with different folds or classes, or a recording is in two splits.
    """
    root = required_root(config.root, "ESC-50")
    index = find_index(root)
    numbered = _read_rows(index)
    rows = list(numbered.values())
    phrases = read_phrases(root, {row["category"] for row in rows})

    # Splits come from the whole index, so that a missing file moves no source to another split.
    test_files = _test_files(numbered, config, index, of_scenes)
    test_sources = {row["src_file"] for row in rows if row["filename"] in test_files}
    valid_sources = choose_sources(
        [(row["category"], row["src_file"]) for row in rows if row["src_file"] not in test_sources],
        config.valid_fraction,
        config.seed,
    )
    splits: dict[str, list[Clip]] = {"train": [], "valid": [], "test": []}
    missing: Counter[str] = Counter()
    absent: list[Path] = []
    keys = _keys(rows)
    for row in rows:
        clip = _clip(keys[row["filename"]], row, root, phrases)
        split = "valid" if row["src_file"] in valid_sources else "train"
        if row["filename"] in test_files:
            split = "test"
        if not os.path.isfile(clip.source):  # the path's own method raises for too long a name
            missing[split] += 1
            absent.append(clip.source)
        elif split == "test" or row["src_file"] not in test_sources:
            splits[split].append(clip)
    if absent and (config.strict or len(absent) == len(rows)):
        first = " ".join(str(absent[0]).split())
        raise MissingFileError(
            f"{first}: no such file; {len(absent)} of the {len(rows)} audio files that {index} "
            "lists are missing, put them there"
        )
    exclusion = Exclusion(config.exclude)
    left = exclusion.from_clips("esc50", splits, missing=keys.values())
    left = {split: clips for split, clips in left.items() if clips}
    shared, same = check_shared_clips("esc50", left, allow=config.allow_shared_audio)
    return AudioTextDataset(
        "esc50",
        left,
        relevance_mode="label",
        counts={
            split: Counts(
                seconds=_CLIP_SECONDS * len(left.get(split, [])),
                missing=missing[split],
                shared_audio=shared[split],
                same_audio=same[split],
                excluded=exclusion.numbers[split],
            )
            for split in {**left, **missing, **exclusion.numbers}
        },
        cache=config.cache,
    )


def find_index(root: Path) -> Path:
    """The table of ESC-50's layout below ``root``, beside ``audio/``.

    Raises:
        MissingFileError: if there is none; the message says what was found.
    """
    for name in _INDEXES:
        if (root / name).is_file() and (root / "audio").is_dir():
            return root / name
    raise MissingFileError(
        f"{root}: not an ESC-50 folder: looked for audio/ with {' or '.join(_INDEXES)}, "
        f"{describe_folder(root)}"
    )


def _read_rows(index: Path) -> dict[int, dict[str, str]]:
    """The rows, by their numbers; those of one file once."""
    rows = [{name: str(value) for name, value in row.items()} for row in read_rows(index)]
    for column in _NEEDED:
        if not rows or column not in rows[0]:
            raise InputError(f"{index}: has no rows with a column {column!r}; needed: {_NEEDED}")
    first: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in enumerate(rows, start=1):
        for column in _NEEDED:
            required_value(row, column, index, number)
        earlier, known = first.setdefault(os.path.normpath(row["filename"]), (number, row))
        for column in (*_NEEDED[1:], "bench_split"):
            if row.get(column) != known.get(column):
                raise InputError(
                    f"{index}: rows {earlier} and {number} are of one file, {row['filename']!r}, "
                    f"and have the {column} {known.get(column)!r} and {row.get(column)!r}; keep "
                    "one of them"
                )
    return dict(first.values())


def read_phrases(root: Path, classes: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Class to its captions, of ``class_phrases.json`` in ``root`` or else of this package's table.

    Raises:
        InputError: if it is no such table, a class has no list of captions with words in them, or
            two classes of the same words have different ones.
    """
    path = root / "class_phrases.json"
    if not path.is_file():
        path = PHRASES_FILE
    phrases = read_json(path, otherwise="correct or remove it")
    if not isinstance(phrases, dict):
        raise InputError(f"{path}: is no JSON object of classes with their captions")
    name = f"{root}: this package's table of ESC-50 phrases" if path is PHRASES_FILE else path
    of_words: dict[str, str] = {}
    for label in sorted(classes):
        given = phrases.get(label)
        if not isinstance(given, list) or not given:
            raise InputError(f"{name}: has no list of captions for class {label!r}; add one")
        if not all(isinstance(text, str) and has_words(text) for text in given):
            raise InputError(f"{name}: class {label!r} has a caption without words; correct it")
        other = of_words.setdefault(words_of_name(label), label)
        if given != phrases[other]:
            raise InputError(
                f"{name}: the classes {other!r} and {label!r} are one by their words and have "
                "different captions; rename one of the two, or give both the same"
            )
    return phrases


def _test_files(
    numbered: Mapping[int, dict[str, str]], config: Esc50Config, index: Path, of_scenes: bool
) -> set[str]:
    """File names of the test clips."""
    rows = list(numbered.values())
    by_fold = "" if of_scenes else ", or set split: fold"
    has_bench = "bench_split" in rows[0]
    if config.split == "bench" and not has_bench:
        raise InputError(f"{index}: has no column 'bench_split'; use split 'fold'")
    if has_bench and config.split != "fold":
        if config.test_fold != Esc50Config.test_fold:
            refuse_unused(
                "test_fold",
                f"{index}: `test_fold` is {config.test_fold}, but the column bench_split says what "
                f"is tested on: leave `test_fold` out{by_fold}",
            )
        for number, row in numbered.items():
            if _bench_split(row) not in ("train", "test"):
                raise InputError(
                    f"{index}: row {number} has the bench_split {row['bench_split']!r}, expected "
                    f"train or test: correct it{by_fold}"
                )
        return {row["filename"] for row in rows if _bench_split(row) == "test"}
    chosen = {row["filename"] for row in rows if row["fold"] == str(config.test_fold)}
    if not chosen:
        folds = ", ".join(sorted({" ".join(row["fold"].split()) for row in rows})[:8])
        raise InputError(f"{index}: has no clip of fold {config.test_fold}; its folds are {folds}")
    return chosen


def _bench_split(row: Mapping[str, str]) -> str:
    return row["bench_split"].strip().lower()


def _keys(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """File name to the key of its clip: its stem, or all of it where several have that stem."""
    stem_of = {row["filename"]: Path(row["filename"]).stem for row in rows}
    stems = Counter(stem_of.values())
    return {
        name: stem if stems[stem] == 1 else os.path.normpath(name) for name, stem in stem_of.items()
    }


def _clip(
    key: str, row: Mapping[str, str], root: Path, phrases: Mapping[str, Sequence[str]]
) -> Clip:
    label = row["category"]
    return Clip(
        key=key,
        captions=tuple(phrases[label]),
        source=root / "audio" / row["filename"],
        label=label,
        caption_group=f"esc50/{label}",
    )
