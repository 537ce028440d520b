"""Teachers as a configuration names them, for a criterion of any host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from atr_moco_plugin.criterion.taught import TaughtCriterion
from atr_moco_plugin.criterion.teachers import RowsById, Teachers
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.readable import named, unreadable
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.teaching.files import SUFFIX, SavedTeacher, read_teacher

FOLDER = "teachers"
"""In a run's output folder: embeddings of the runs and bundles that are its teachers."""

_LOOK_SECONDS = 1.0
"""Of a clip that a teacher could not embed: what training is asked to read."""


def use_teachers(
    criterion: Any,
    dataset: AudioTextDataset | None = None,
    split: str = "train",
    *,
    folder: Path | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    say: Callable[[str], object] = print,
) -> None:
    """Give a criterion the teachers that its option ``teachers`` names, on every process, before
    the first step. Nothing is done where there is none, or it has them.

    Args:
        criterion: of this package.
        dataset: what is trained on. With it the teachers are checked before the first step, and may
            be training runs and bundles. Without it a clip that a teacher does not know ends the
            run in its step.
        split: of the data set, that is trained on.
        folder: the run's output folder. Runs and bundles embed the split into its folder
            ``teachers``; a run that goes on reads what is there.
        batch_size: sounds or sentences that a run or bundle embeds at once.
        num_workers: threads that decode audio for it.
        say: told what is done.

    Raises:
        InputError: on every process, for a teacher that cannot be read, does not know what is
            trained on, or comes twice, and for others than a loaded state has learned from.

    Example:
        >>> config = MocoAtcConfig(teachers=["clotho_train.safetensors"])  # doctest: +SKIP
        >>> criterion = MocoAtc(model, config)  # doctest: +SKIP
        >>> use_teachers(criterion)  # doctest: +SKIP
    """
    if not isinstance(criterion, TaughtCriterion) or not criterion.is_taught:
        return
    if criterion.teachers is not None:
        return
    saved = []
    for name in criterion.config.teachers:
        path, kept = _places(name, folder, dataset, split)
        if not path.is_file():
            if dataset is None or kept is None:
                raise InputError(
                    f"`teachers` has {name}, which is no file: give its saved embeddings, or the "
                    "data set and a folder to `use_teachers`, so that it can embed what is trained "
                    "on."
                )
            # A model is needed here alone, and with it transformers.
            from atr_moco_plugin.teaching.models import Split, embed_where_missing

            device = criterion.temperature.device
            own = Split(dataset, split, batch_size, num_workers, device)
            embed_where_missing(path, kept, own, say)
            path = kept
        saved.append(read_teacher(path, dataset))
    _check(saved, dataset, split)
    criterion.set_teachers(Teachers([one.teacher for one in saved], criterion.config))


def check_teachers(criterion: Any, dataset: AudioTextDataset, split: str, *, folder: Path) -> None:
    """Refuse teachers that :func:`use_teachers` would refuse, as far as nothing has to be embedded
    for it.

    Args:
        criterion: of this package.
        dataset: what is trained on.
        split: of the data set, that is trained on.
        folder: the run's output folder.

    Raises:
        InputError: for a teacher that is not there, cannot be read, does not know what is trained
            on, or comes twice.
    """
    if not isinstance(criterion, TaughtCriterion) or not criterion.is_taught:
        return
    places = [_places(name, folder, dataset, split)[0] for name in criterion.config.teachers]
    _check([read_teacher(path, dataset) for path in places if path.is_file()], dataset, split)


def _check(saved: Sequence[SavedTeacher], dataset: AudioTextDataset | None, split: str) -> None:
    _check_different(saved)
    if dataset is not None:
        for one in saved:
            _check_knows(one, dataset, split)


def _places(
    name: str, folder: Path | None, dataset: AudioTextDataset | None, split: str
) -> tuple[Path, Path | None]:
    """A teacher, and the file in a run's folder where its embeddings are if it is a model.

    Raises:
        MissingFileError: neither is there.
    """
    path = expanded(name, "teachers")
    kept = None
    if folder is not None and dataset is not None and not path.is_file():
        kept = folder / FOLDER / _file_name(path, dataset, split)
    if not path.exists() and (kept is None or not kept.exists()):
        raise MissingFileError(
            f"`teachers` has {name!r}, but there is no such file or folder: give a file of saved "
            "embeddings, a training run or a bundle."
        )
    return path, kept


def _file_name(source: Path, dataset: AudioTextDataset, split: str) -> str:
    """Of what a run or a bundle embeds of a split. Other data have another file: a command that is
    refused later, for its data, leaves the one that the run goes on with."""
    of = stable_digest("teacher", str(source.resolve()), split, dataset.fingerprint())
    return f"{source.name}-{of % 16**8:08x}{SUFFIX}"


def _check_different(saved: Sequence[SavedTeacher]) -> None:
    seen: dict[tuple[int, int], str] = {}
    for teacher, _ in saved:
        key = teacher.clips.digest, teacher.captions.digest
        if key in seen:
            raise InputError(
                f"The teachers {seen[key]} and {teacher.name} are the same embeddings: name them "
                "once."
            )
        seen[key] = teacher.name


def _check_knows(saved: SavedTeacher, dataset: AudioTextDataset, split: str) -> None:
    """Refuse a teacher that has not embedded all that is trained on. What neither it nor training
    can read is left out by both."""
    lost = saved.about.get("unreadable") or {}
    clips: dict[int, str] = {}
    captions: dict[int, str] = {}
    asked = []
    for clip in dataset.clips(split):
        if clip.key in lost:
            asked.append(clip)
        else:
            clips[dataset.clip_id(clip)] = clip.key
        captions |= dict(zip(clip.caption_ids, clip.captions, strict=True))
    # A data set of which nobody reads audio takes the teacher's word for it.
    broken = unreadable(dataset, asked, _LOOK_SECONDS) if dataset.is_read else lost
    if refused := {clip.key: str(lost[clip.key]) for clip in asked if clip.key not in broken}:
        raise InputError(
            f"The teacher {saved.teacher.name} cannot embed {len(refused):,} clips of the split "
            f"{split!r} of {dataset.name} that training can read, at least in part: "
            f"{named(refused)}; leave them out of the data, or take another teacher."
        )
    for what, names, table in (
        ("clips", clips, saved.teacher.clips),
        ("captions", captions, saved.teacher.captions),
    ):
        lacking = _lacking(names, table)
        if len(lacking) == len(names):
            raise InputError(
                f"The teacher {saved.teacher.name} is of other {what}: it has none of the "
                f"{len(names):,} of the split {split!r} of {dataset.name}, such as {lacking[0]!r}; "
                "embed what is trained on."
            )
        if lacking:
            raise InputError(
                f"The teacher {saved.teacher.name} lacks {len(lacking):,} of {len(names):,} {what} "
                f"of the split {split!r} of {dataset.name}, such as {lacking[0]!r}: embed the "
                "whole split."
            )


def _lacking(names: dict[int, str], table: RowsById) -> list[str]:
    return [names[x] for x in table.missing(torch.tensor(list(names))).tolist()]
