"""The clips that a run of this host evaluates, those that can be decoded, and that an evaluation of
it does, none that it was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from fairseq2.device import Device
from fairseq2.logging import log
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.trained_clips import TRAINED_CLIPS, check_held_out
from atr_moco_plugin.evaluation.unreadable import Unreadable, left_out
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.evaluation.corrections import correction_splits
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.hosts.fairseq2.runs.folder import CLIPS_FILE
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.text.checks import check_captions


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


def has_other_data(
    config: EvaluateRecipeConfig,
    run: Path,
    trained: Mapping[str, Any],
    dataset: AudioTextDataset,
    tokenizer: PreTrainedTokenizerBase,
) -> bool:
    """Whether the data set of a run that does not say its clips has another content by now.

    Captions without a token are dropped as the run has dropped them, in a copy.

    Args:
        config: the recipe's configuration. Another data set than the run's is no mistake.
        run: the output folder of the run.
        trained: the run's configuration.
        dataset: the data set as it is now, with all captions.
        tokenizer: the run's own.
    """
    made_with = object_if_whole(run / CLIPS_FILE).get("made_with")
    known = made_with.get("data") if isinstance(made_with, dict) else None
    section, own = config.dataset, trained["dataset"]
    options: Any = section.config_overrides or {}
    here = (section.family, section.name, options.get("name"))
    there = (own["family"], own["name"], (own["config_overrides"] or {}).get("name"))
    if known is None or here != there or (run / TRAINED_CLIPS).is_file():
        return False
    then = copy(dataset)
    then.splits, then.counts = dict(dataset.splits), dict(dataset.counts)
    used = (
        own.get("train_split", "train"),
        own.get("valid_split", "valid"),
        trained.get("evaluation", {}).get("test_split"),
    )
    splits = [split for split in used if split in then.splits]
    # Of a split that has lost all, which no run can have been made with, the content differs.
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore")
        max_tokens: int = trained["tokenizer"]["max_tokens"]
        check_captions(tokenizer, then, splits, max_tokens, allow_unknown=True)
    return bool(known != then.fingerprint())


def check_evaluated(
    config: EvaluateRecipeConfig, run: Path, dataset: AudioTextDataset, *, other_data: bool
) -> dict[str, int]:
    """:func:`~atr_moco_plugin.evaluation.trained_clips.check_held_out` of the split that the recipe
    evaluates, and of the one that its corrections are chosen on.

    Args:
        config: the recipe's configuration.
        run: the output folder of the run.
        dataset: the data set as it is now, without the captions that the run has dropped.
        other_data: what :func:`has_other_data` says.

    Returns:
        How many clips of the evaluated split the run has seen, by what it did with them.

    Raises:
        InputError: for clips that the run was trained on.
    """
    seen = {
        split: check_held_out(
            run,
            dataset,
            split,
            allow=config.allow_trained,
            warn=partial(log.warning, "{}"),
            other_data=other_data,
        )
        # The bank is of clips that were trained on.
        for split in dict.fromkeys((config.split, *correction_splits(config)[:1]))
    }
    return seen[config.split]
