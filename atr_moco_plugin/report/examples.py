"""Examples on the page of a run: what they are, and the file that holds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dacite

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically

EXAMPLES_FILE = "report/examples.json"


@dataclass(frozen=True)
class Sound:
    """A clip that can be played.

    Attributes:
        key: the clip's key.
        label: its class, where there are classes.
        captions: its captions.
        uri: its audio as a ``data:`` address; ``None`` when it could not be read.
        note: that the audio was cut, or why there is none.
    """

    key: str
    label: str | None
    captions: tuple[str, ...]
    uri: str | None
    note: str | None


@dataclass(frozen=True)
class FoundItem:
    """One result of a query.

    Attributes:
        item: index into :attr:`Examples.sounds` or :attr:`Examples.captions`.
        place: 1 is the first result.
        score: the similarity.
        relevant: whether it counts as a hit.
    """

    item: int
    place: int
    score: float
    relevant: bool


@dataclass(frozen=True)
class Retrieval:
    """One query and what was found.

    Attributes:
        query: index into :attr:`Examples.captions` (text to audio) or :attr:`Examples.sounds`.
        rank: of the best relevant item, ties counted against it.
        candidates: how many items were ranked.
        margin: score of the best relevant item minus the score of the best other one.
        found: the first results, and the best relevant item where it is not among them.
    """

    query: int
    rank: int
    candidates: int
    margin: float
    found: tuple[FoundItem, ...]


@dataclass(frozen=True)
class Direction:
    """The best and the worst retrievals of one direction, the most extreme first."""

    best: tuple[Retrieval, ...]
    worst: tuple[Retrieval, ...]


@dataclass(frozen=True)
class Matrix:
    """Similarities of a sample: R clips (keys) by K captions, clips of one label side by side.

    Attributes:
        rows: R clip keys.
        columns: K captions, one for each clip; a caption of several clips occurs once.
        values: R rows of K similarities.
        relevant: R rows of K truth values.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    relevant: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Examples:
    """Retrievals and similarities of a model on one split, as the page shows them.

    Attributes:
        split: the split's name.
        clips: how many clips it has.
        sounds: the clips in the retrievals.
        captions: the captions in the retrievals.
        text_to_audio: captions as queries.
        audio_to_text: clips as queries.
        matrix: a sample of the similarities.
        checkpoint: that they are of, as ``retrieval.json`` names it; None where it is not known, as
            in a file of an earlier version.
    """

    split: str
    clips: int
    sounds: tuple[Sound, ...]
    captions: tuple[str, ...]
    text_to_audio: Direction
    audio_to_text: Direction
    matrix: Matrix
    checkpoint: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Examples:
        """Examples from the parsed file of :meth:`save`.

        Raises:
            InputError: when something is missing or of another type.
        """
        try:
            examples = dacite.from_dict(cls, values, dacite.Config(cast=[tuple, float]))
        except (dacite.DaciteError, TypeError) as ex:
            raise InputError(f"not the examples of a report: {ex}") from ex
        for sound in examples.sounds:
            if sound.uri is not None and not sound.uri.startswith("data:audio/"):
                raise InputError(f"the sound of clip {sound.key!r} is no data: address of audio")
        return examples

    def save(self, run_folder: Path) -> Path:
        """Write ``report/examples.json`` of a run, from which its page can be built again."""
        path = Path(run_folder) / EXAMPLES_FILE
        write_atomically(path, json.dumps(asdict(self)) + "\n")
        return path
