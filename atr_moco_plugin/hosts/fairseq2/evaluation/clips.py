"""The clips that a run of this host evaluates, those that can be decoded, and that an evaluation of
it does, none that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fairseq2.device import Device
from fairseq2.logging import log

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.evaluation.trained_clips import check_held_out
from atr_moco_plugin.evaluation.unreadable import Unreadable, left_out
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.evaluation.corrections import correction_splits
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.hosts.fairseq2.runs.folder import CLIPS_FILE
from atr_moco_plugin.io.json_files import object_if_whole


def unreadable_clips(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    splits: Sequence[str],
    output_dir: Path,
    device: Device,
    cached: Mapping[str, Mapping[str, str]] | None = None,
) -> Unreadable:
    """:func:`~atr_moco_plugin.evaluation.unreadable.left_out` of a training run.

    Args:
        config: the recipe's configuration.
        dataset: the data set.
        splits: the splits that are evaluated.
        output_dir: the run's.
        device: where the process group exchanges tensors.
        cached: splits whose clips are not decoded, with what is found of them.
    """
    file = output_dir / CLIPS_FILE
    return left_out(
        dataset,
        splits,
        from_first(lambda: object_if_whole(file), device),
        file,
        seconds=config.evaluated_seconds,
        decoder=config.dataset.decoder,
        num_workers=config.dataset.num_workers,
        most=config.dataset.max_bad_clips,
        device=device,
        note=partial(log.info, "{}"),
        warn=partial(log.warning, "{}"),
        cached=cached,
    )


def check_evaluated(
    config: EvaluateRecipeConfig, run: Path, dataset: AudioTextDataset
) -> dict[str, int]:
    """:func:`~atr_moco_plugin.evaluation.trained_clips.check_held_out` of the split that the recipe
    evaluates, and of the one that its corrections are chosen on.

    Args:
        config: the recipe's configuration.
        run: the output folder of the run.
        dataset: the data set as it is now.

    Returns:
        How many clips of the evaluated split the run has seen, by what it did with them.

    Raises:
        InputError: for clips that the run was trained on.
    """
    made_with = object_if_whole(run / CLIPS_FILE).get("made_with")
    seen = {
        split: check_held_out(
            run,
            dataset,
            split,
            allow=config.allow_trained,
            warn=partial(log.warning, "{}"),
            fingerprint=made_with.get("data") if isinstance(made_with, dict) else None,
        )
        # The bank is of clips that were trained on.
        for split in dict.fromkeys((config.split, *correction_splits(config)[:1]))
    }
    return seen[config.split]
