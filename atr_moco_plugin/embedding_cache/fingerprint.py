"""What decides about cached outputs: the weights, the clips or captions, and how they are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from torch import nn

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.dataset import AudioTextDataset

Fingerprint = Mapping[str, str | int | float | bool | None]
"""Name to value of everything that decides; values of JSON's types, digests in hexadecimal."""

MEANINGS = {
    "encoder": "the encoder's class",
    "weights": "the encoder's weights",
    "pooling": "the pooling",
    "clips": "the clips",
    "captions": "the captions",
    "tokenizer": "the token ids of the captions",
    "max_seconds": "the longest clip in seconds",
    "sample_rate": "the sampling rate in Hz",
    "decoder": "the audio decoder",
    "rounded": "rounding to 16 bits by `dataset.cache_dir`",
    "crops": "`dataset.cache_crops`",
    "seed": "the seed of the crops",
}
"""What each name of a fingerprint is called in a message."""

_SETTING = "setting "
_NO_MATTER = re.compile(
    r"drop(out|_path|_rate)|_drop$|layerdrop|(^|\.)(sha256|_name_or_path|transformers_version)$"
)


def weights_digest(module: nn.Module) -> str:
    """Digest of the names, types, shapes and bytes of a module's parameters and buffers.

    It is the same on every device. 100 million float32 weights take half a second.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, x in sorted(module.state_dict().items()):
        digest.update(json.dumps([name, str(x.dtype), list(x.shape)]).encode())
        content = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()


def encoder_settings(encoder: Any) -> dict[str, str | int | float | bool | None]:
    """The settings that a built encoder has in its ``config``, as entries of a fingerprint.

    A setting may change nothing on the test input, as the longest distance of BEATs' attention does
    on a short one. Left out are those that change nothing that stands still: dropouts, and where
    the weights came from.

    Args:
        encoder: its ``config`` is a dataclass, a mapping or one of transformers; without one there
            are none.
    """
    config: Any = getattr(encoder, "config", None)
    values: Any = {}
    if is_dataclass(config) and not isinstance(config, type):
        values = asdict(config)
    elif callable(getattr(config, "to_dict", None)):
        values = config.to_dict()
    elif isinstance(config, Mapping):
        values = config
    source = getattr(encoder, "weights_option", None)
    return {
        f"{_SETTING}{name}": value
        for name, value in _flat(values)
        if name != source and not _NO_MATTER.search(name)
    }


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of JSON's types; lists as text."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is None or isinstance(value, (str, int, float, bool)):
            yield name, value
        elif isinstance(value, (list, tuple)):
            try:
                yield name, json.dumps(value)
            except (TypeError, ValueError):
                continue  # objects of no value that another process would have again


def clips_digest(dataset: AudioTextDataset, split: str) -> str:
    """Digest of which clips a split has, in which order, and which part of its file each one is.

    What rendered clips are made of belongs to it, or else their captions: what is heard follows
    from them, and there is no file to look at.
    """
    rendered = dataset.read is not None
    digest = hashlib.blake2b(json.dumps([dataset.name, rendered]).encode(), digest_size=16)
    for clip in dataset.clips(split):
        row: list[object] = [clip.key]
        if isinstance(clip.source, Segment):
            row.append((clip.source.start, clip.source.end))
        if dataset.read_key is not None:
            row.append(dataset.read_key(clip))
        elif rendered:
            row.append(clip.captions)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def texts_digest(texts: Iterable[str | list[int]]) -> str:
    """Digest of texts, or of the token ids of texts, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(json.dumps(text).encode() + b"\n")
    return digest.hexdigest()


def class_name(module: object) -> str:
    """Module and name of an object's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def differences(found: Fingerprint, expected: Fingerprint) -> list[str]:
    """What differs between two fingerprints, in words.

    Args:
        found: of the cache.
        expected: of the run.
    """
    names = dict.fromkeys([*MEANINGS, *found, *expected])
    return [
        _difference(_meaning(name), found.get(name), expected.get(name))
        for name in names
        if found.get(name) != expected.get(name)
    ]


def _meaning(name: str) -> str:
    if name.startswith(_SETTING):
        return f"the encoder's `{name.removeprefix(_SETTING)}`"
    return MEANINGS.get(name, name)


def _difference(meaning: str, before: object, now: object) -> str:
    if all(isinstance(x, str) and len(x) == 32 for x in (before, now)):
        return f"{meaning} differ"  # two digests tell nobody anything
    return f"{meaning}: {before!r} there, {now!r} here"
