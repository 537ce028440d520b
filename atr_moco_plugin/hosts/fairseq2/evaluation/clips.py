"""The clips that a run evaluates: those that can be decoded, the same ones at every validation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq2.device import Device
from fairseq2.logging import log

from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loading.loader import tolerated_clips
from atr_moco_plugin.data.loading.readable import named, unreadable
from atr_moco_plugin.distributed import gather_values, process_index, world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.io.atomic import write_atomically

FILE = "evaluation_clips.json"
"""In a run's output folder: by split the clips that could not be decoded, with the reason."""

Unreadable = dict[str, dict[str, str]]


def find_unreadable(
    dataset: AudioTextDataset,
    splits: Sequence[str],
    seconds: float,
    num_workers: int,
    device: Device,
) -> Unreadable:
    """Decode the clips of splits with all processes.

    Returns:
        By split, key to reason of each clip that cannot be decoded; the same on every process.
    """
    found: Unreadable = {}
    for split in splits:
        clips = dataset.clips(split)
        own = [clips[i] for i in range(process_index(), len(clips), world_size())]
        every = gather_values(unreadable(dataset, own, seconds, num_workers), device)
        reasons = {key: why for of_rank in every for key, why in of_rank.items()}
        found[split] = {clip.key: reasons[clip.key] for clip in clips if clip.key in reasons}
    return found


def left_out(
    dataset: AudioTextDataset,
    splits: Sequence[str],
    config: RetrievalRecipeConfig,
    output_dir: Path,
    device: Device,
) -> Unreadable:
    """What a training run leaves out of its evaluations.

    The clips are decoded once, before the first step. What was found is kept in the output folder,
    so that a run that goes on leaves out the same ones and its figures stay comparable.

    Raises:
        InputError: when more clips of a split than ``dataset.max_bad_clips`` cannot be decoded.
    """
    section = config.dataset
    seconds = config.evaluation.max_seconds or section.max_seconds
    made_with = {
        "data": dataset.fingerprint(),
        "decoder": section.decoder,
        "max_seconds": seconds,
        "sample_rate": dataset.sample_rate,
    }
    file = output_dir / FILE
    # Read by one process: another might find what the first has just written.
    known = gather_values(_read(file, made_with) if process_index() == 0 else {}, device)[0]
    found: Unreadable = {split: known[split] for split in splits if split in known}
    new = [split for split in splits if split not in found]
    if new:
        log.info("Decoding the clips of {}, so that none ends an evaluation.", " and ".join(new))
        found |= find_unreadable(dataset, new, seconds, section.num_workers, device)
    for split, reasons in found.items():
        _check(dataset, split, reasons, section.max_bad_clips, file)
    if new and process_index() == 0:
        content = {"made_with": made_with, "unreadable": {**known, **found}}
        write_atomically(file, json.dumps(content, indent=2) + "\n")
    return found


def check_all_readable(
    dataset: AudioTextDataset, split: str, seconds: float, num_workers: int, device: Device
) -> None:
    """Refuse a split of which a clip cannot be decoded, before anything is encoded.

    Raises:
        InputError: with their number, and the first few with the reason.
    """
    reasons = find_unreadable(dataset, [split], seconds, num_workers, device)[split]
    if reasons:
        raise InputError(
            f"{_said(dataset, split, reasons)}: {named(reasons)}; an evaluation leaves nothing out, "
            "since its figures would be of another set: mend the files or take them off the list."
        )


def check_enough(dataset: AudioTextDataset, split: str, clips: Sequence[Clip]) -> None:
    """Refuse a split of one clip, which every caption finds.

    Raises:
        InputError: naming it.
    """
    if len(clips) < 2:
        raise InputError(
            f"{dataset.name} split {split!r} has one clip to evaluate on, among which there is "
            "nothing to find; give it two or more."
        )


def _said(dataset: AudioTextDataset, split: str, reasons: Mapping[str, str]) -> str:
    clips = len(dataset.clips(split))
    return f"{dataset.name} split {split!r}: {len(reasons):,} of {clips:,} clips cannot be decoded"


def _read(file: Path, made_with: dict[str, Any]) -> Unreadable:
    """What the file says, nothing where it is of other data or half-written."""
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("made_with") != made_with:
        return {}
    return dict(content["unreadable"])


def _check(
    dataset: AudioTextDataset, split: str, reasons: dict[str, str], most: int | None, file: Path
) -> None:
    if not reasons:
        return
    clips = len(dataset.clips(split))
    most = tolerated_clips(clips) if most is None else most
    said = _said(dataset, split, reasons)
    if len(reasons) > most or len(reasons) == clips:
        raise InputError(
            f"{said}, more than dataset.max_bad_clips={most}: {named(reasons)}; mend or remove the "
            "files, since figures without them would be of another set."
        )
    log.warning(
        "{} and are left out of its figures: {}. {} names them all; delete it to look again.",
        said, named(reasons), file,
    )  # fmt: skip
