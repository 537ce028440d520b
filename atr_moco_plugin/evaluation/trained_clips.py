"""The clips that a run was trained on and that chose its checkpoint, kept beside its checkpoints.

Splits of a data set that is opened anew may be others: they are drawn again where rows of a table
are gone, and named by another table. An evaluation would then count clips that the model knows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.io.atomic import new_file

TRAINED_CLIPS = "trained_clips.safetensors"
"""In a run's output folder: sorted ids of clips, ``train`` int64 ``[T]`` and ``valid`` ``[V]``."""

Ids = NDArray[np.int64]

_ROLES = ("train", "valid")


@dataclass(frozen=True)
class TrainedClips:
    """The clips of a run.

    Attributes:
        ids: sorted clip ids, of those that it trained on (``train``) and of those that chose its
            checkpoint (``valid``).
        splits: the names of these splits in the data set.
        dataset: name of the data set, which is part of the ids.
    """

    ids: dict[str, Ids]
    splits: dict[str, str]
    dataset: str


def keep_trained_clips(
    run: Path,
    dataset: AudioTextDataset,
    train_split: str,
    valid_split: str,
    *,
    goes_on: bool,
    start: Path | None = None,
    test_split: str | None = None,
) -> None:
    """Write :data:`TRAINED_CLIPS`, before the first step. One process writes it.

    Args:
        run: the output folder.
        dataset: what the run reads.
        train_split: what it trains on.
        valid_split: what chooses its checkpoint.
        goes_on: whether it has made steps before. Their clips are kept; where no file says which
            they were, as in runs of earlier versions, none is written.
        start: what a new run takes its weights from, if that is a place of this machine: a run, or
            a checkpoint, a bundle or a file in its folder. The clips of that run are known too,
            where it says them.
        test_split: what the run is tested on in the end. It warns of clips there, and of those that
            choose the checkpoint, that the run of ``start`` was trained on.

    Raises:
        InputError: for a damaged file.
    """
    known = read_trained_clips(run) if goes_on else clips_of_source(start, run)
    if goes_on and known is None:
        return
    ids = {
        role: _ids_of(dataset, split)
        for role, split in zip(_ROLES, (train_split, valid_split), strict=True)
    }
    if known is not None and not goes_on:
        for split in filter(None, (valid_split, test_split)):
            warn_of_known(known, dataset, split, str(start))
    if known is not None:
        ids = {role: np.union1d(known.ids[role], x) for role, x in ids.items()}
    about = {"train_split": train_split, "valid_split": valid_split, "dataset": dataset.name}
    with new_file(run / TRAINED_CLIPS) as temporary:
        save_file(ids, temporary, about)


def warn_of_known(known: TrainedClips, dataset: AudioTextDataset, split: str, name: str) -> None:
    """Warn of the clips of a held-out split that another run was trained on.

    Args:
        known: the clips of that run.
        dataset: what is read here.
        split: what is held out of it.
        name: of the run, in the warning.
    """
    seen = np.isin(_ids_of(dataset, split), known.ids["train"])
    if seen.any():
        warnings.warn(
            f"{int(seen.sum()):,} of {len(seen):,} clips of {split!r} are among those that {name} "
            "was trained on, by their names: figures of them are better than on other sounds. Give "
            "the data and options that it had.",
            stacklevel=3,
        )


def clips_of_source(source: Path | None, run: Path) -> TrainedClips | None:
    """The clips of the run around a path that weights or embeddings are taken from; None where that
    is ``run`` or no run.

    Raises:
        InputError: for a damaged file.
    """
    if source is None:
        return None
    path = source.resolve()
    for folder in (path, *path.parents):
        if folder == run.resolve():
            break
        if (folder / TRAINED_CLIPS).is_file():
            return read_trained_clips(folder)
        if (folder / "config.yaml").is_file():  # of a run of an earlier version
            break
        # RUN/bundle, RUN/checkpoint-N and RUN/checkpoints/step_N/model/pp_00/tp_00/sdp_00.pt.
        if len(path.relative_to(folder).parts) > 6:
            break
    return None


def read_trained_clips(run: Path) -> TrainedClips | None:
    """What :func:`keep_trained_clips` wrote; None where a run has no such file.

    Raises:
        InputError: for a damaged file.
    """
    file = run / TRAINED_CLIPS
    if not file.is_file():
        return None
    try:
        with safe_open(file, "np") as content:
            about = content.metadata()
            return TrainedClips(
                ids={role: content.get_tensor(role) for role in _ROLES},
                splits={role: about[f"{role}_split"] for role in _ROLES},
                dataset=about["dataset"],
            )
    except (OSError, SafetensorError, KeyError, TypeError):
        raise InputError(
            f"{file} cannot be read, which says which clips the run was trained on: copy it from "
            "the run again, or remove it to evaluate without that look."
        ) from None


def check_held_out(
    run: Path,
    dataset: AudioTextDataset,
    split: str,
    *,
    allow: bool = False,
    warn: Callable[[str], object],
    other_data: bool = False,
) -> dict[str, int]:
    """Compare a split with the clips that a run was made with, before the split is evaluated.

    Args:
        run: the output folder of the run.
        dataset: the data set as it is now.
        split: what is evaluated. The training split of the run may be, by its name.
        allow: warn of clips that the run was trained on, where they are refused otherwise.
        warn: called with each sentence on what differs.
        other_data: whether the data set is that of the run and its content is not, which is
            warned of where the run does not say which clips it was trained on.

    Returns:
        How many clips of the split the run was trained on (``train``), and how many chose its
        checkpoint (``valid``); only numbers above 0, and none of a split that has that role.

    Raises:
        InputError: for a split that is not there, for clips that were trained on, and for a
            damaged file.
    """
    clips = dataset.clips(split)
    known = read_trained_clips(run)
    if known is None:
        if other_data:
            warn(
                f"{run} was trained on other data than {dataset.name} as it is here, and does not "
                f"say which clips it was trained on: make sure that none of them is in {split!r}."
            )
        return {}
    own = _ids_of(dataset, split, in_order=True)

    def said_of(which: NDArray[np.bool_]) -> str:
        names = [clips[int(i)].key for i in which.nonzero()[0][:3]]
        number = int(which.sum())
        return f"{number:,} of {len(own):,} clips of {split!r} ({listed(names, of=number)})"

    seen = {role: np.isin(own, ids) for role, ids in known.ids.items()}
    if split in known.splits.values():
        role = next(role for role, name in known.splits.items() if name == split)
        if seen[role].any() and not seen[role].all():
            warn(
                f"{said_of(~seen[role])} are other ones than the run {run} had in that split: its "
                "own figures are of other clips."
            )
        if role == "train":
            return {}
        del seen[role]
    counts = {role: int(which.sum()) for role, which in seen.items() if which.any()}
    if "train" in counts:
        found = (
            f"{said_of(seen['train'])} are among those that the run {run}, or the one that it "
            "started from, was trained on"
        )
        if not allow:
            raise InputError(
                f"{found}, by their names. Give the data and options that the run had, or for "
                "other sounds of a folder or manifest that are called alike a name of their own, "
                "`dataset.config_overrides.name=NAME`; `allow_trained=true` evaluates all the same."
            )
        warn(f"{found}; `allow_trained` evaluates them all the same.")
    if "valid" in counts:
        warn(
            f"{said_of(seen['valid'])} are among those that chose its checkpoint in the run {run}: "
            "figures of them are better than those of clips that chose nothing."
        )
    if not counts and dataset.name == known.dataset and not _knows_any(dataset, known):
        warn(
            f"{dataset.name} has none of the clips that the run {run} was trained on, by their "
            "names: where the sounds are the same under other paths, nothing tells which of them "
            "it was trained on."
        )
    return counts


def _knows_any(dataset: AudioTextDataset, known: TrainedClips) -> bool:
    """Whether any clip of the data set is one of the run; mostly the first one is."""
    every = {int(i) for ids in known.ids.values() for i in ids}
    return any(dataset.clip_id(x) in every for clips in dataset.splits.values() for x in clips)


def _ids_of(dataset: AudioTextDataset, split: str, *, in_order: bool = False) -> Ids:
    """The clip ids of a split, sorted or in the order of its clips."""

    def each() -> Iterator[int]:
        return (dataset.clip_id(clip) for clip in dataset.clips(split))

    ids = np.fromiter(each(), np.int64, len(dataset.clips(split)))
    return ids if in_order else np.sort(ids)
