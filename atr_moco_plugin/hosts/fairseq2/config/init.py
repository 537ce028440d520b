"""What a run starts from: pretrained encoders, random weights, or an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fairseq2.recipe.config import ModelSection
from fairseq2.recipe.error import RecipeError
from fairseq2.utils.config import ConfigMerger

from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.runs.folder import (
    MODEL_FILE,
    find_checkpoint,
    read_model_config,
)
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.model import RetrievalModel, without_weights
from atr_moco_plugin.retriever.bundle import TOKENIZER, WEIGHTS, is_bundle
from atr_moco_plugin.retriever.bundle import read_config as read_bundle_config

KINDS = ("pretrained", "random")


class Source(NamedTuple):
    """Where an earlier run's weights lie.

    Attributes:
        model: a model file that is of no checkpoint, or a checkpoint's ``model`` folder.
        tokenizer: the tokenizer they were trained with.
        architecture: configuration of the model they are of.

    The last two are None for a file, which says nothing of itself.
    """

    model: Path
    tokenizer: Path | None = None
    architecture: dict[str, Any] | None = None


def find_source(init: str) -> Source | None:
    """The files ``init`` names, None for ``pretrained`` and ``random``.

    Raises:
        RecipeError: when it is neither of the two nor a run, a checkpoint or a file.
    """
    if init in KINDS:
        return None
    with one_line_errors():
        path = expanded(init, "init")
    if path.is_file():
        checkpoint = _checkpoint_around(path)
        if checkpoint is None:
            return Source(path)
        path = checkpoint
    if not path.exists():
        raise RecipeError(
            f"`init` is {init!r}, but must be {' or '.join(KINDS)}, or the folder of an earlier "
            "run, one of its `checkpoints/step_N` folders, a bundle, or a model file; there is "
            "none there. To go on with a run whose start is gone, give its own output folder: it "
            "has all that it took from there."
        )
    if is_bundle(path):
        return _of_bundle(path)
    run, step = find_checkpoint(path)
    architecture = read_model_config(run)
    # Its adapters are merged into the weights; whether the new run has some, it says itself.
    for part in {"audio", "text"} & architecture.keys():
        architecture[part].pop("adapter", None)
    return Source(step / "model", run / "tokenizer", architecture)


def _checkpoint_around(file: Path) -> Path | None:
    """The folder ``step_N`` of a run whose weights a file has, None for a file that lies
    elsewhere."""
    steps = (x.parent for x in file.absolute().parents if x.name == "model")
    step = next((x for x in steps if x.name.startswith("step_")), None)
    if step is None:
        return None
    run = step.parent.parent
    whole = (run / MODEL_FILE).is_file() and (run / "tokenizer").is_dir()
    return step if whole else None  # copied without its run, it is a file like any other


def _of_bundle(folder: Path) -> Source:
    with one_line_errors():
        config = read_bundle_config(folder)
    if config.kind != "retrieval":
        raise RecipeError(
            f"`init` is {folder}, a bundle of a ClapModel, which the recipe finetune trains: "
            "python -m atr_moco_plugin.recipes.finetune."
        )
    return Source(folder / WEIGHTS, folder / TOKENIZER, dict(config.model))


def start_from(source: Source, model: ModelSection, merger: ConfigMerger) -> None:
    """Make a model section load an earlier run's weights into its architecture.

    What the section overrides stays, but for where encoders have pretrained weights: those of the
    run replace them.
    """
    model.path = source.model
    if source.architecture is None:
        return
    stated: Any = model.config_overrides or {}
    overrides = dict(stated)
    for part in ("audio", "text"):
        section = dict(overrides.get(part) or {})
        name = section.get("name", source.architecture[part]["name"])
        if section.get("config"):
            section["config"] = without_weights(f"{part}_encoders", name, section["config"])
            overrides[part] = section
    model.arch, model.config_overrides = "base", merger.merge(source.architecture, overrides)


def check_pretrained(model: RetrievalModel) -> None:
    """Refuse a model with an encoder that could have been pretrained and is not.

    Raises:
        RecipeError: naming the key that is missing.
    """
    encoders: dict[str, Any] = {"audio": model.audio.encoder, "text": model.text.encoder}
    for part, encoder in encoders.items():
        option = getattr(encoder, "weights_option", None)
        if option is not None and getattr(encoder.config, option) is None:
            raise RecipeError(
                f"`init` is pretrained, but the {part} encoder has no weights to start from: set "
                f"`model.config_overrides.{part}.config.{option}` to where they are, or "
                "`init=random` to start it from random weights."
            )
