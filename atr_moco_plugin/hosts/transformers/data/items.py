"""One example of a data set, checked: a clip with one caption, or with a list of captions."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from atr_moco_plugin.data.audio.waveform import (
    BadClipError,
    Samples,
    as_waveform,
    shown,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_words

FIELDS = ("audio", "caption", "clip_id", "caption_id")
NO_ITEM = -100
"""Clip or caption id where there is none. ``Trainer`` pads results with it; real ids are not
negative."""


@dataclass(frozen=True)
class Item:
    """One example, read.

    Attributes:
        clip_id: id of its clip.
        captions: its captions that have a word in them, with their ids; empty where ``problem``
            says why.
        wordless: number of captions without a word, which are left out.
        listed: whether the example has a list of captions, even a list of one.
        waveform: ``[samples]`` float32 at the extractor's rate; not to be used where there is a
            ``problem``.
        problem: why the example cannot be used; empty where it can.
        name: name of its clip in messages.
    """

    clip_id: int
    captions: tuple[tuple[str, int], ...]
    wordless: int
    listed: bool
    waveform: Samples
    problem: str
    name: str


def read_item(example: Mapping[str, Any], sample_rate: int) -> Item:
    """Read one example.

    Args:
        example: see :class:`~atr_moco_plugin.hosts.transformers.ClapCollator`.
        sample_rate: rate of the feature extractor in Hz.

    Raises:
        InputError: the example has the wrong form, so that all others have it too. A fault of one
            clip alone is in the result.
    """
    if not isinstance(example, Mapping):
        raise InputError(
            f"An example is {shown(example)}, of the type {type(example).__name__}, expected a "
            f"mapping with {', '.join(FIELDS)}."
        )
    for field in FIELDS:
        if field not in example:
            raise InputError(
                f"An example has no {field!r}: ClapCollator needs {', '.join(FIELDS)}. If the "
                "data set has it, Trainer dropped the column: pass **TRAINING_ARGUMENTS."
            )
    clip_id = _id(example["clip_id"], "clip_id")
    name = _name(example, clip_id)
    every = _captions(example["caption"], example["caption_id"], name)
    captions = tuple((text, number) for text, number in every if has_words(text))
    stated = example.get("sampling_rate", sample_rate)
    if not isinstance(stated, Real) or stated != sample_rate:
        raise InputError(
            f"The clip {name} was read at {shown(stated)} Hz, but the feature extractor takes "
            f"{sample_rate} Hz: read it at that rate, or give its audio as "
            "{'array', 'sampling_rate'}, which is resampled."
        )
    waveform: Samples = np.zeros(0, np.float32)
    problem = example.get("problem") or ""
    if not problem:
        try:
            waveform = as_waveform(example["audio"], sample_rate)
        except BadClipError as ex:
            problem = str(ex)
        except InputError as ex:
            raise InputError(f"The audio of the clip {name} cannot be read: {ex}.") from ex
    if not problem and not captions:
        problem = "it has no caption with a word in it"
    wordless = len(every) - len(captions)
    kept = () if problem else captions
    return Item(clip_id, kept, wordless, _is_list(example["caption"]), waveform, problem, name)


def _captions(caption: Any, caption_id: Any, name: str) -> list[tuple[str, int]]:
    """All captions of an example, with their ids."""
    listed = _is_list(caption)
    texts = list(caption) if listed else [caption]
    for text in texts:
        if not isinstance(text, str):
            raise InputError(
                f"A caption of the clip {name} is {shown(text)}, of the type "
                f"{type(text).__name__}, expected a string or a list of strings: give the text and "
                "not its token ids."
            )
    if _is_list(caption_id) != listed or (listed and len(caption_id) != len(texts)):
        raise InputError(
            f"The clip {name} has {_many(caption, 'caption')} and "
            f"{_many(caption_id, 'caption_id')}: give one id for each caption, in a list where "
            "the captions are one."
        )
    ids = caption_id if listed else [caption_id]
    return [(text, _id(number, "caption_id")) for text, number in zip(texts, ids, strict=True)]


def _id(value: Any, field: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    # Negative numbers mean "no item" in queues and results.
    if isinstance(value, bool | np.bool_) or not 0 <= number < 2**63:
        raise InputError(
            f"{field} is {shown(value)}, expected an integer from 0 to 2**63 - 1: make one "
            f"from a text with `atr_moco_plugin.ids.{field}`."
        )
    return number


def _name(example: Mapping[str, Any], clip_id: int) -> str:
    audio = example["audio"]
    path = audio.get("path") if isinstance(audio, Mapping) else None
    name = example.get("name") or path
    return str(clip_id) if name is None else shown(str(name))


def _is_list(value: Any) -> bool:
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _many(value: Any, field: str) -> str:
    return f"{len(value)} `{field}` in a list" if _is_list(value) else f"one `{field}`"
