"""A bundle of a training run: the model of a checkpoint as an evaluation builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq2.recipe.error import RecipeError

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import Checkpoint, open_checkpoint
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_model_config
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.model import merge_adapters, model_config
from atr_moco_plugin.retriever.bundle import BundleConfig, packages_of
from atr_moco_plugin.retriever.exported import SCORE, Exported, ExportOptions
from atr_moco_plugin.text.checks import check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer_for


def export_run(run: Path, options: ExportOptions) -> Exported:
    """What a bundle of a run is written from.

    A window is the longest clip that the run's evaluation took whole. Adapters are merged, queues
    and momentum copies stay behind. Of the data the names are kept, and no path of this machine.

    Args:
        run: a run's output folder, or one of its ``checkpoints/step_N``.
        options: what is wanted otherwise.

    Raises:
        InputError: naming the file that is missing or cannot be read, for a part of the model that
            is not installed, and for figures of another checkpoint.
    """
    if options.tokenizer is not None:
        raise InputError(
            "--tokenizer is for runs that keep none; this run has its own in tokenizer/: leave it "
            "out."
        )
    try:
        checkpoint = open_checkpoint(run, options.checkpoint)
        merge_adapters(checkpoint.model)
        plain = model_config(read_model_config(checkpoint.run)).without_adapters()
        return _exported(checkpoint, asdict(plain), options)
    except RecipeError as ex:
        raise InputError(str(ex)) from ex


def _exported(checkpoint: Checkpoint, model: dict[str, Any], options: ExportOptions) -> Exported:
    folder = checkpoint.run / "tokenizer"
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing; a run writes its tokenizer there before its first step: give "
            "the whole output folder."
        )
    tokenizer = load_tokenizer_for(checkpoint.model.text.encoder, str(folder))
    max_tokens = int(_value(checkpoint, "tokenizer", "max_tokens"))
    check_tokenizer(tokenizer, checkpoint.model.text.encoder, max_tokens)  # type: ignore[arg-type]
    seconds = checkpoint.trained["evaluation"].get("max_seconds")
    seconds = seconds or _value(checkpoint, "dataset", "max_seconds")
    window, hop = options.windows(
        float(seconds), most=getattr(checkpoint.model.audio.encoder, "max_seconds", None)
    )
    config = BundleConfig(
        kind="retrieval",
        model=model,
        sample_rate=checkpoint.model.sample_rate,
        window_seconds=window,
        hop_seconds=hop,
        max_tokens=max_tokens,
        temperature=checkpoint.temperature,
        score=SCORE if checkpoint.matches else None,
        packages=packages_of(model_config(model)),
        origin=_origin(checkpoint),
    )
    return Exported(
        config=config,
        model=checkpoint.model,
        tokenizer=tokenizer,
        factor=checkpoint.factor,
        figures=_figures(checkpoint, options.figures),
    )


def _value(checkpoint: Checkpoint, section: str, key: str) -> Any:
    """A number of the run's configuration.

    Raises:
        InputError: where it is none.
    """
    value = checkpoint.trained[section][key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise InputError(
            f"{checkpoint.run / 'config.yaml'}: `{section}.{key}` is {value!r}, expected a number "
            "above 0."
        )
    return value


def _origin(checkpoint: Checkpoint) -> dict[str, Any]:
    trained = checkpoint.trained
    dataset = trained["dataset"]
    return {
        "host": "fairseq2",
        "run": checkpoint.run.resolve().name,
        "checkpoint": checkpoint.folder.name,
        "step": dict((f, n) for n, f in step_folders(checkpoint.folder.parent, "step_")).get(
            checkpoint.folder
        ),
        "criterion": checkpoint.criterion,
        "seed": trained["common"].get("seed"),
        "data": {
            key: dataset.get(key)
            for key in ("family", "name", "train_split", "valid_split", "max_seconds")
        },
    }


def _figures(checkpoint: Checkpoint, file: Path | None) -> Mapping[str, Any]:
    """The splits of the run's own ``retrieval.json``, where it is of this checkpoint, or of
    another evaluation of it.

    Raises:
        InputError: for a file that was asked for and is of another checkpoint, or none.
    """
    name = f"{checkpoint.folder.parent.name}/{checkpoint.folder.name}"
    found = object_if_whole(checkpoint.run / "retrieval.json" if file is None else file)
    splits = found.get("splits")
    if file is None:
        return splits if isinstance(splits, dict) and found.get("checkpoint") == name else {}
    if not isinstance(splits, dict):
        raise InputError(f"{file} has no `splits`: give the retrieval.json of an evaluation.")
    run = Path(str(found.get("run", "")))
    if found.get("checkpoint") != name or run.name != checkpoint.run.resolve().name:
        raise InputError(
            f"{file} has the figures of {run.name}/{found.get('checkpoint')}, but what is exported "
            f"is {checkpoint.run.resolve().name}/{name}: give figures of this checkpoint."
        )
    return splits
