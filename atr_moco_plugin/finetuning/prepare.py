"""From what a user has set to a run that a loop can train: data, start, plan, every value."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.registry import (
    dataset_config,
    one_decoder,
    open_dataset,
    with_options,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import flattened, nested
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.data_sections import DatasetSection
from atr_moco_plugin.finetuning.facts import data_facts
from atr_moco_plugin.finetuning.kept_start import start_of_run
from atr_moco_plugin.finetuning.keys import read_config, split_keys, without_nulls
from atr_moco_plugin.finetuning.loops import chosen_loop, run_processes
from atr_moco_plugin.finetuning.measuring import MAX_TOKENS, gather_facts
from atr_moco_plugin.finetuning.parts import merged
from atr_moco_plugin.finetuning.plan import make_plan, plan_text
from atr_moco_plugin.finetuning.saved_plan import PLAN_FILE, saved_plan
from atr_moco_plugin.finetuning.silent import silence_notes
from atr_moco_plugin.finetuning.start import Start, Started
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.lock import lock_folder
from atr_moco_plugin.io.processes import is_first_process
from atr_moco_plugin.plugins import load
from atr_moco_plugin.text.checks import text_positions

ValueT = TypeVar("ValueT")

_WAIT = 600.0


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Attributes:
        config: every value, those that the plan has chosen too.
        other: keys that the user has set and only fairseq2 knows, nested.
        start: where it starts.
        started: its model, frozen as the configuration says.
        dataset: the pairs, open.
        output_dir: of the run.
        processes: that train together.
    """

    config: FinetuneConfig
    other: dict[str, Any]
    start: Start
    started: Started
    dataset: AudioTextDataset
    output_dir: Path
    processes: int

    @property
    def evaluated_seconds(self) -> float:
        """The longest clip that an evaluation takes whole."""
        return self.config.evaluation.max_seconds or settled(self.config.dataset.max_seconds)


def settled(value: ValueT | None) -> ValueT:
    """A value of a prepared run's configuration, which the plan has chosen if nobody else has."""
    assert value is not None, "the plan chooses it"
    return value


def prepare(
    stated: Mapping[str, Any],
    output_dir: Path,
    *,
    dataset: AudioTextDataset | None = None,
    tell: Callable[[str], object],
) -> Prepared:
    """Open the data, build the model, and choose what the user has not set.

    The choices are saved in the output folder. The same command takes them from there, so that a
    run goes on with the sizes that it began with, whatever else the machine is doing by then.

    Args:
        stated: keys of a recipe that the user has set, see
            :func:`~atr_moco_plugin.finetuning.keys.written_out`.
        output_dir: of the run.
        dataset: the pairs, where they are open already.
        tell: called with what a user should read, the plan above all.

    Raises:
        InputError: for data, a start or a configuration that cannot be used.
    """
    stated = without_nulls(stated)
    config, other = read_config(stated)
    opened = dataset is not None
    if opened:
        _check_unread(config.dataset)
    lock_folder(output_dir)
    dataset = open_configured(config) if dataset is None else dataset
    start = start_of_run(config, output_dir)
    loop = chosen_loop(config, other, start, in_memory=opened)
    processes = run_processes(loop, other)
    for note in getattr(dataset, "notes", ()):
        tell(note)
    tell(dataset.summary())
    section, test = config.dataset, config.evaluation.test_split or "test"
    splits = dict.fromkeys((section.train_split, section.valid_split, test))
    for note in silence_notes(dataset, [x for x in splits if x in dataset.splits]):
        tell(note)
    chosen = _chosen(config, stated, start, dataset, output_dir, processes, tell)
    if options := _model_options(chosen):
        start = start.with_options(options)
    torch.manual_seed(config.common.seed)
    started = start.build()
    rate = _sample_rate(started)
    dataset.read_with(AudioReader(rate, config.dataset.decoder, config.dataset.cache_dir))
    complete = _settled(replace(config, loop=loop), chosen, start, started, dataset)
    return Prepared(complete, other, start, started, dataset, output_dir, processes)


def open_configured(config: FinetuneConfig) -> AudioTextDataset:
    """Open the data set that the configuration names."""
    section = config.dataset
    decoder = one_decoder(section.config_overrides, section.decoder)
    options = dataset_config(section.family, section.config_overrides)
    return open_dataset(section.family, with_options(options, decoder=decoder))


def _check_unread(section: DatasetSection) -> None:
    """Refuse keys that name a data set, where the pairs are open already."""
    for key, default in (("family", DatasetSection.family), ("config_overrides", {})):
        if (value := getattr(section, key)) != default:
            raise InputError(
                f"`dataset.{key}` is {value}, but the pairs are in memory, where nothing reads it: "
                "leave it out."
            )


def _chosen(
    config: FinetuneConfig,
    stated: Mapping[str, Any],
    start: Start,
    dataset: AudioTextDataset,
    output_dir: Path,
    processes: int,
    tell: Callable[[str], object],
) -> dict[str, Any]:
    """The plan's values, nested: those of the folder's own plan where it is of the same command."""
    as_read = json.loads(json.dumps(stated, default=str))
    splits = {"train": config.dataset.train_split, "valid": config.dataset.valid_split}
    known = {**data_facts(dataset, **splits), "processes": processes}
    saved = saved_plan(output_dir, as_read, known)
    waited = time.monotonic()
    file = output_dir / PLAN_FILE
    while saved is None and not is_first_process():  # the first process chooses for all
        if time.monotonic() - waited > _WAIT:
            raise InputError(
                f"The first of {processes} processes has not written {file}: see what it says, and "
                "give all of them one output folder."
            )
        time.sleep(0.5)
        saved = saved_plan(output_dir, as_read, known)
    if saved is not None:
        tell(f"The plan is that of {file}, which was made before:\n{plan_text(saved)}")
        return nested({choice.key: choice.value for choice in saved})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = gather_facts(
        start,
        dataset,
        device,
        **splits,
        processes=processes,
    )
    plan = make_plan(facts, flattened(stated))
    tell(f"The plan, where KEY=VALUE after --config sets another value:\n{plan.text()}")
    content = {"stated": as_read, **plan.as_dict()}
    write_atomically(file, json.dumps(content, indent=2, default=str) + "\n")
    return plan.options()


def _settled(
    config: FinetuneConfig,
    chosen: Mapping[str, Any],
    start: Start,
    started: Started,
    dataset: AudioTextDataset,
) -> FinetuneConfig:
    """The configuration with every value."""
    model: Any = started.model
    tree = merged(asdict(config), split_keys(chosen, FinetuneConfig)[0])
    steps = tree["regime"]["num_steps"]
    cuda = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    most = min(MAX_TOKENS, text_positions(model.text.encoder) or MAX_TOKENS)
    for section, key, value in (
        ("tokenizer", "max_tokens", start.max_tokens or most),
        ("evaluation", "test_split", "test" if "test" in dataset.splits else None),
        ("regime", "validate_every_n_steps", max(1, steps // 10)),
        ("regime", "publish_metrics_every_n_steps", _publish_every(tree["regime"])),
    ):
        if tree[section][key] is None:
            tree[section][key] = value
    longest = _longest_clip(started)
    if longest is not None and tree["dataset"]["max_seconds"] > longest:
        if config.dataset.max_seconds is not None:
            raise InputError(
                f"`dataset.max_seconds` is {config.dataset.max_seconds:g}, but the model takes "
                f"clips of {longest:g} s at most: set it to that or less."
            )
        tree["dataset"]["max_seconds"] = longest
    evaluated = tree["evaluation"]["max_seconds"]
    if longest is not None and evaluated is not None and evaluated > longest:
        raise InputError(
            f"`evaluation.max_seconds` is {evaluated:g}, but the model takes clips of {longest:g} "
            "s at most: set it to that or less, or leave it out."
        )
    shortest = getattr(model.audio.encoder, "min_seconds", None) or 0.0
    if tree["dataset"]["max_seconds"] < shortest:
        raise InputError(
            f"`dataset.max_seconds` is {tree['dataset']['max_seconds']:g}, but the audio encoder "
            f"takes clips of {math.ceil(shortest * 1000) / 1000:g} s or more: set it to that or "
            "more."
        )
    if start.kind in ("bundle", "run", "clap") and config.tokenizer.name is not None:
        raise InputError(
            f"`tokenizer.name` is {config.tokenizer.name}, but {start.name} was trained with its "
            "own tokenizer, and another one would give it other ids: leave it out."
        )
    precision = tree["trainer"]["mixed_precision"]
    if precision["mode"] is None:
        precision["mode"] = "auto" if cuda else "off"
    criterion = load("criteria", tree["criterion"]["name"])
    if start.temperature is not None and getattr(criterion, "learns_temperature", True):
        tree["criterion"]["config"].setdefault("temperature", start.temperature)
    for name in ("augment", "mix"):  # objects of their own classes
        tree["dataset"][name] = getattr(config.dataset, name)
    return build_config(FinetuneConfig, tree, "finetune")


def _publish_every(regime: Mapping[str, Any]) -> int:
    """Steps from one line of figures to the next: twenty in a run or more, and some with each
    validation and each checkpoint, as fairseq2 asks."""
    every = regime["validate_every_n_steps"] or max(1, regime["num_steps"] // 10)
    both = math.gcd(every, regime["checkpoint_every_n_steps"] or every)
    most = max(1, min(20, regime["num_steps"] // 20))
    return max(x for x in range(1, most + 1) if both % x == 0)


def _model_options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan has chosen of the model, where that is more than to train all of it."""
    options = (chosen.get("model") or {}).get("config_overrides") or {}
    return {
        part: {"freeze": value["freeze"]}
        for part, value in options.items()
        if value.get("freeze", "none") != "none"
    }


def _longest_clip(started: Started) -> float | None:
    """Seconds that the model takes at most, rounded down; None where there is no limit."""
    encoder: Any = started.model.audio.encoder
    extractor = started.feature_extractor
    most = getattr(encoder, "max_seconds", None) if extractor is None else extractor.max_length_s
    return None if most is None else math.floor(float(most) * 100) / 100


def _sample_rate(started: Started) -> int:
    extractor = started.feature_extractor
    return started.model.sample_rate if extractor is None else int(extractor.sampling_rate)
