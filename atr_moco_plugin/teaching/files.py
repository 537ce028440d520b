"""A teacher's embeddings from a file: what ``embed`` and ``evaluate`` write."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atr_moco_plugin.criterion.teachers import RowsById, Teacher
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError, MissingFileError

SUFFIX = ".safetensors"
_IDS = {"audio": "clip_ids", "text": "caption_ids"}
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE = 2e-2  # of 16 bits


class SavedTeacher(NamedTuple):
    """What a file of embeddings holds.

    Attributes:
        teacher: the embeddings.
        about: what the file says of how it was made; empty where it does not.
    """

    teacher: Teacher
    about: dict[str, Any]


def read_teacher(path: Path, dataset: AudioTextDataset | None = None) -> SavedTeacher:
    """Read and check saved embeddings, which stay in the file, mapped into memory.

    Args:
        path: a ``.safetensors`` with ``audio``, ``clip_ids``, ``text`` and ``caption_ids``, as
            ``embed`` and an evaluation with ``save_embeddings`` write it.
        dataset: what is trained on. ``embed`` does not know its name, so its clips are found by
            the paths of their files too.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it cannot be read or lacks one of the four, for rows of another width, that
            are not finite or not of length 1, and for paths or facts that are damaged.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file of a teacher's embeddings.")
    tensors, metadata = _read(path)
    missing = [name for pair in _IDS.items() for name in pair if name not in tensors]
    if missing:
        raise InputError(
            f"{path} has no `{missing[0]}`: a teacher's file has `audio` with `clip_ids` and "
            "`text` with `caption_ids`, as `embed FOLDER --text FILE` and an evaluation with "
            "save_embeddings=true write it."
        )
    rows = {kind: _checked(path, kind, tensors[kind], tensors[ids]) for kind, ids in _IDS.items()}
    widths = {kind: x.size(1) for kind, x in rows.items()}
    if widths["audio"] != widths["text"]:
        raise InputError(
            f"{path}: `audio` has {widths['audio']} numbers a row and `text` {widths['text']}; the "
            "embeddings of a teacher are of one space."
        )
    clip_ids = tensors["clip_ids"]
    if dataset is not None and "paths" in metadata:
        paths = _paths(path, metadata["paths"], len(clip_ids))
        clip_ids, rows["audio"] = _by_path(clip_ids, rows["audio"], paths, dataset)
    clips = _by_id(path, "audio", clip_ids, rows["audio"])
    captions = _by_id(path, "text", tensors["caption_ids"], rows["text"])
    teacher = Teacher(str(path), clips, captions)
    about = _parsed(metadata.get("about", "{}"))
    if not isinstance(about, dict):
        raise InputError(
            f"{path}: `about` in its metadata is damaged, expected an object in JSON: write the "
            "file again."
        )
    return SavedTeacher(teacher, about)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix != SUFFIX:
        raise InputError(
            f"{path}: teachers are read from {SUFFIX} files, since one has sounds and sentences; "
            "write one with `embed --output NAME.safetensors`."
        )
    try:
        with safe_open(path, "pt") as file:
            names = [x for pair in _IDS.items() for x in pair if x in file.keys()]
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as ex:
        raise InputError(f"{path} cannot be read as {SUFFIX} ({ex}); write it again.") from ex


def _paths(path: Path, text: str, number: int) -> list[str]:
    """The paths of the rows of ``audio``."""
    paths = _parsed(text)
    if (
        not isinstance(paths, list)
        or len(paths) != number
        or not all(isinstance(x, str) for x in paths)
    ):
        raise InputError(
            f"{path}: `paths` in its metadata is damaged, expected a list of {number:,} paths in "
            "JSON, one for each row of `audio`: write the file again."
        )
    return paths


def _parsed(text: str) -> Any:
    """A value in JSON; None for a text that is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _checked(path: Path, kind: str, rows: Tensor, ids: Tensor) -> Tensor:
    """Rows in float32.

    Raises:
        InputError: naming the first row that is none.
    """
    if rows.dim() != 2 or not rows.is_floating_point() or not rows.numel():
        raise InputError(
            f"{path}: `{kind}` is {rows.dtype} of shape {list(rows.shape)}, expected floats "
            "[rows, numbers]."
        )
    if ids.dtype != torch.int64 or ids.shape != rows.shape[:1]:
        raise InputError(
            f"{path}: `{_IDS[kind]}` is {ids.dtype} of shape {list(ids.shape)}, expected int64 of "
            f"shape [{len(rows)}], an id for each row of `{kind}`."
        )
    norms = torch.cat([part.float().norm(dim=1) for part in rows.split(65_536)])
    if len(bad := (~norms.isfinite()).nonzero()):
        raise InputError(
            f"{path}: row {int(bad[0])} of `{kind}` is not finite: embed it again, or leave the "
            "clip out of the training."
        )
    far = (norms - 1).abs() > _TOLERANCE.get(rows.dtype, _COARSE)
    if len(bad := far.nonzero()):
        raise InputError(
            f"{path}: row {int(bad[0])} of `{kind}` has the length {norms[bad[0]].item():.4g}, "
            "expected 1: cosines are taken of a teacher's embeddings, so save them unit-norm."
        )
    return rows.float()


def _by_id(path: Path, kind: str, ids: Tensor, rows: Tensor) -> RowsById:
    """Rows of one id are averaged; refuses those that leave nothing."""
    table = RowsById(ids, rows)
    if len(table.ids) < len(ids):
        lost = (table.find(table.ids).norm(dim=1) < 0.5).nonzero()
        if len(lost):
            number = int(table.ids[lost[0]])
            raise InputError(
                f"{path}: the rows of `{kind}` with the id {number} are opposite and have no mean: "
                f"give each id of `{_IDS[kind]}` one row."
            )
    return table


def _by_path(
    ids: Tensor, rows: Tensor, paths: Sequence[str], dataset: AudioTextDataset
) -> tuple[Tensor, Tensor]:
    """Ids and rows, where a row of a file of the data set is there for each of its clips. Rows are
    copied only where a file has several."""
    clips: defaultdict[str, set[int]] = defaultdict(set)
    for split in dataset.splits:
        for clip in dataset.clips(split):
            if isinstance(clip.source, (str, os.PathLike)):
                clips[os.path.realpath(clip.source)].add(dataset.clip_id(clip))
    own = zip(paths, ids.tolist(), strict=True)
    found = [sorted(clips.get(os.path.realpath(path), {number})) for path, number in own]
    numbers = torch.tensor([number for each in found for number in each])
    if len(numbers) > len(rows):
        rows = rows.repeat_interleave(torch.tensor([len(each) for each in found]), dim=0)
    return numbers, rows
