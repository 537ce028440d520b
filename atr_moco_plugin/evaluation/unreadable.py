"""The clips that a run's evaluations leave out: the same ones at every validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.bad_clips import tolerated_clips
from atr_moco_plugin.data.loading.readable import named, unreadable
from atr_moco_plugin.distributed import gather_values, process_index, world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically

Unreadable = dict[str, dict[str, str]]
"""By split, key to reason of each clip that cannot be decoded."""

Tell = Callable[[str], object]
"""Called with a sentence for the log."""


def find_unreadable(
    dataset: AudioTextDataset,
    split: str,
    seconds: float,
    num_workers: int,
    device: torch.device,
    without: Container[str] = (),
) -> dict[str, str]:
    """Decode the clips of a split with all processes.

    Args:
        dataset: the data set.
        split: its split.
        seconds: what an evaluation reads of each clip.
        num_workers: threads that decode on each process.
        device: where the process group exchanges tensors.
        without: keys of clips that are not looked at.

    Returns:
        Key to reason of each clip that cannot be decoded; the same on every process.
    """
    clips = [clip for clip in dataset.clips(split) if clip.key not in without]
    own = [clips[i] for i in range(process_index(), len(clips), world_size())]
    every = gather_values(unreadable(dataset, own, seconds, num_workers), device)
    reasons = {key: why for of_process in every for key, why in of_process.items()}
    return {clip.key: reasons[clip.key] for clip in clips if clip.key in reasons}


def left_out(
    dataset: AudioTextDataset,
    splits: Sequence[str],
    content: Mapping[str, Any],
    file: Path,
    *,
    seconds: float,
    decoder: str,
    num_workers: int,
    most: int | None,
    device: torch.device,
    note: Tell,
    warn: Tell,
    cached: Mapping[str, Mapping[str, str]] | None = None,
) -> Unreadable:
    """Find the clips that a run leaves out of its evaluations.

    The clips are decoded once, before the first step. What was found is kept in a file, so that a
    run that goes on leaves out the same ones and its figures stay comparable.

    Args:
        dataset: the data set.
        splits: the splits that are evaluated.
        content: of ``file``, the same on every process; empty where there is none.
        file: the first process writes there what is found anew.
        seconds: what an evaluation reads of each clip.
        decoder: what decodes files.
        num_workers: threads that decode on each process.
        most: clips of a split that may be left out; None for
            :func:`~atr_moco_plugin.data.loading.bad_clips.tolerated_clips`.
        device: where the process group exchanges tensors.
        note: for the log.
        warn: for the log.
        cached: splits whose clips are not decoded, with what is found of them.

    Raises:
        InputError: for a split that is not there, and where more clips of a split than ``most``,
            or all of them, cannot be decoded.
    """
    made_with = {
        "data": dataset.fingerprint(),
        "decoder": decoder,
        "max_seconds": seconds,
        "sample_rate": dataset.sample_rate,
    }
    for split in splits:
        dataset.clips(split)  # a wrong name is reported before clips are decoded
    known: Unreadable = content["unreadable"] if content.get("made_with") == made_with else {}
    found = {split: known[split] for split in splits if split in known}
    new = [split for split in splits if split not in found]
    found |= {split: dict(cached[split]) for split in new if cached and split in cached}
    decoded = [split for split in new if split not in found]
    if decoded:
        note(f"Decoding the clips of {' and '.join(decoded)}, so that none ends an evaluation.")
    for split in decoded:
        found[split] = find_unreadable(dataset, split, seconds, num_workers, device)
    for split, reasons in found.items():
        if reasons:
            warn(_tolerated(dataset, split, reasons, most, file))
    if new and process_index() == 0:
        content = {"made_with": made_with, "unreadable": {**known, **found}}
        write_atomically(file, json.dumps(content, indent=2) + "\n")
    return found


def check_all_readable(
    dataset: AudioTextDataset, split: str, seconds: float, num_workers: int, device: torch.device
) -> None:
    """Refuse a split with a clip that cannot be decoded, before anything is encoded.

    Raises:
        InputError: with their number, and the first few with the reason.
    """
    reasons = find_unreadable(dataset, split, seconds, num_workers, device)
    if reasons:
        raise InputError(
            f"{_counted(dataset, split, reasons)}: {named(reasons)}; an evaluation leaves nothing "
            "out, since its figures would be of another set: mend the files or take them off the "
            "list."
        )


def _counted(dataset: AudioTextDataset, split: str, reasons: dict[str, str]) -> str:
    clips = len(dataset.clips(split))
    return f"{dataset.name} split {split!r}: {len(reasons):,} of {clips:,} clips cannot be decoded"


def _tolerated(
    dataset: AudioTextDataset, split: str, reasons: dict[str, str], most: int | None, file: Path
) -> str:
    """What to warn of clips that are left out, where there are not too many."""
    clips = len(dataset.clips(split))
    most = tolerated_clips(clips) if most is None else most
    counted = _counted(dataset, split, reasons)
    if len(reasons) > most or len(reasons) == clips:
        raise InputError(
            f"{counted}, more than dataset.max_bad_clips={most}: {named(reasons)}; mend or remove "
            "the files, since figures without them would be of another set."
        )
    return (
        f"{counted} and are left out of its figures: {named(reasons)}. {file} names them all; "
        "delete it to look again."
    )
