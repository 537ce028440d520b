"""The clips that a run of this host evaluates: those that can be decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fairseq2.device import Device
from fairseq2.logging import log

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.evaluation.unreadable import Unreadable, left_out
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
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
