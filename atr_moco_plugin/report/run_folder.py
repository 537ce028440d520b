"""Reads the folder of a run, with patience: a stopped run leaves half-written files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError

Record = dict[str, Any]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

_SECRET = re.compile(
    r"(^|[_.-])(token|secret|password|passwd|passphrase|api_?key|access_?key|private_?key"
    r"|credentials?|authorization|cookie)$",
    re.IGNORECASE,
)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")
_URL_QUERY = re.compile(r"(?<=[^\s?]\?)\S+")
_MAX_POINTS = 1_000


class ReportError(RuntimeError):
    """A report cannot be written; the message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that a report is made of; a missing file is empty.

    Attributes:
        folder: the output folder of the run.
        config: ``config.yaml``, dotted key to text, without anything secret.
        train: ``metrics/train.jsonl``, one record a step, sorted.
        valid: ``metrics/valid.jsonl``, one record a step, sorted.
        rank: ``rank.jsonl``, one record a step, sorted.
        retrieval: ``retrieval.json``.
        examples: ``report/examples.json``.
        problems: name of a file that cannot be read to a sentence on why.
    """

    folder: Path
    config: dict[str, str] = field(default_factory=dict)
    train: list[Record] = field(default_factory=list)
    valid: list[Record] = field(default_factory=list)
    rank: list[Record] = field(default_factory=list)
    retrieval: Record = field(default_factory=dict)
    examples: Record = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def read_run(folder: Path) -> RunFiles:
    """Read the files of a run that are there.

    Raises:
        ReportError: when the folder has none of them.
    """
    problems: dict[str, str] = {}

    def read(name: str, parse: Any, empty: Any) -> Any:
        path = folder / name
        if not path.is_file():
            return empty
        try:
            return parse(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as ex:
            problems[name] = f"{name} is not readable: {' '.join(str(ex).split())}"
            return empty

    run = RunFiles(
        folder=folder,
        config=read("config.yaml", parse_config, {}),
        train=read("metrics/train.jsonl", lambda text: parse_lines(text, "Step"), []),
        valid=read("metrics/valid.jsonl", lambda text: parse_lines(text, "Step"), []),
        rank=read("rank.jsonl", lambda text: parse_lines(text, "step"), []),
        retrieval=read("retrieval.json", _parse_object, {}),
        examples=read("report/examples.json", _parse_object, {}),
        problems=problems,
    )
    if not (run.config or run.train or run.valid or run.rank or run.retrieval or problems):
        raise ReportError(
            f"{folder} has no config.yaml, metrics, rank.jsonl or retrieval.json; "
            "give the output folder of a run."
        )
    return run


def parse_lines(text: str, step: str) -> list[Record]:
    """Records of a JSON-lines file, one a step and sorted by it.

    Lines without a record are left out: the last line of a killed run is cut off. Where a run went
    back to a checkpoint and reached a step twice, the later record counts.

    Args:
        text: the file.
        step: the key of the step number.
    """
    records: dict[float, Record] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and math.isfinite(number(record.get(step))):
            records[number(record[step])] = record
    return [records[key] for key in sorted(records)]


def parse_config(text: str) -> dict[str, str]:
    """A YAML file as dotted keys, the way they are given to ``--config``.

    Values stay as they are written. The value of a key that names a secret is hidden, and so are
    user and query of an address.

    Raises:
        InputError, yaml.YAMLError: when it is not YAML, or not a mapping.
    """
    # The base loader makes text of everything: nothing is executed, `off` stays `off`.
    tree = yaml.load(text, Loader=yaml.BaseLoader)
    if not isinstance(tree, dict):
        raise InputError("a mapping of sections is expected")
    return {key: _harmless(key, value) for key, value in _flatten("", tree)}


def series(records: Iterable[Mapping[str, Any]], step: str, *path: str | int) -> Series:
    """Steps and values of the records that have a finite number at ``path``.

    A long curve is thinned to about a thousand points: the lowest and the highest value of each
    stretch, so that a single spike stays visible.
    """
    points = [(number(record.get(step)), number(_at(record, path))) for record in records]
    steps, values = np.array([p for p in points if math.isfinite(p[1])]).reshape(-1, 2).T
    if len(values) <= _MAX_POINTS:
        return steps, values
    keep = {0, len(values) - 1}
    edges = np.linspace(0, len(values), _MAX_POINTS // 2 + 1).astype(int)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        keep |= {int(start + values[start:stop].argmin()), int(start + values[start:stop].argmax())}
    chosen = sorted(keep)
    return steps[chosen], values[chosen]


def number(value: object) -> float:
    """``value`` where it is a number, else NaN."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return math.nan


def _parse_object(text: str) -> Record:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise InputError("a JSON object is expected")
    return value


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def _flatten(prefix: str, tree: Any) -> Iterable[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), value)
    elif isinstance(tree, list) and any(isinstance(item, (dict, list)) for item in tree):
        for index, item in enumerate(tree):
            yield from _flatten(f"{prefix}[{index}]", item)
    elif isinstance(tree, list):
        yield prefix, f"[{', '.join(map(str, tree))}]"
    else:
        yield prefix, "{}" if tree == {} else str(tree)


def _harmless(key: str, value: str) -> str:
    name = re.sub(r"(\[\d+\])+$", "", key)
    if _SECRET.search(name) and value not in ("", "null"):
        return "(hidden)"
    return _URL_QUERY.sub("(hidden)", _URL_USER.sub("", value)) if "://" in value else value
