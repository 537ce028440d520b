"""Reading the folder that a training run leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fairseq2.recipe.error import RecipeError
from torch import Tensor
from torch.nn import Module

from atr_moco_plugin.encoders.weights import is_weights, one_line
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.checkpoints import read_torch, step_folders
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.yaml12 import NoYamlError, load_yaml
from atr_moco_plugin.model import RetrievalModelConfig, model_config

_SECTIONS = {
    "model": (),
    "dataset": ("family", "name", "max_seconds", "decoder", "config_overrides"),
    "criterion": (),
    "tokenizer": ("max_tokens",),
    "evaluation": (),
    "common": (),
}
_NAMED = 3
MODEL_FILE = "model.json"
CLIPS_FILE = "evaluation_clips.json"
"""In a run's output folder: by split the clips that could not be decoded, with the reason."""


def run_folder(run: str) -> Path:
    """The option ``run`` as a path, with ``~`` and variables replaced.

    Raises:
        RecipeError: for a variable that is not set.
    """
    with one_line_errors():
        return expanded(run, "run")


def find_checkpoint(path: Path, which: str | None = None) -> tuple[Path, Path]:
    """The run and the checkpoint that a path names.

    Args:
        path: a run's output folder, or one of its ``checkpoints/step_N``, which then is the one.
        which: of a run's folder, ``best`` (the highest validation score; the last one where there
            are no scores), ``last`` or ``step_N``; None takes the best.

    Returns:
        The run's folder and the checkpoint's.

    Raises:
        RecipeError: when there is no complete checkpoint, or not that one, or when ``path`` is
            another one than ``which``.
    """
    if (path / "model").is_dir():
        # A link or `.` has not the name by which its score is found.
        path = path.resolve()
        if which not in (None, path.name):
            raise RecipeError(
                f"`run` is the checkpoint {path}, but `checkpoint` is {which!r}: leave "
                f"`checkpoint` out, or give the run's folder, {path.parent.parent}."
            )
        return path.parent.parent, path
    which = which or "best"
    found = step_folders(path / "checkpoints", "step_")
    steps = {step: folder for step, folder in found if (folder / "model").is_dir()}
    if not steps:
        if list(path.glob("checkpoint-*")) or (path / "config.json").is_file():
            raise RecipeError(
                f"{path} is a run of transformers' Trainer, or a bundle, and this reads runs of "
                "fairseq2: the figures of Trainer's run are in its retrieval.json, where "
                "`python -m atr_moco_plugin.recipes.compare` finds them, `atr-moco analyse SOUNDS "
                "CAPTIONS --model BUNDLE` has those of its bundle on other sounds, and what is not "
                "a ClapModel can be trained with loop=fairseq2."
            )
        raise RecipeError(
            f"{path}: no checkpoint there; looked for `checkpoints/step_N/model` and `model`. Give "
            "the output folder of a training run or one of its checkpoints."
        )
    if which == "last":
        return path, steps[max(steps)]
    if which == "best":
        scores = {step: score for step in steps if (score := score_of(steps[step])) is not None}
        best = max(scores, key=lambda step: (scores[step], step), default=max(steps))
        return path, steps[best]
    for folder in steps.values():
        if folder.name == which:
            return path, folder
    names = ", ".join(steps[step].name for step in sorted(steps))
    raise RecipeError(f"{path} has no checkpoint {which!r}; choose best, last or one of {names}.")


def score_of(checkpoint: Path) -> float | None:
    """The validation score of a checkpoint ``.../checkpoints/step_N``, None where it has none."""
    try:
        return float((checkpoint.parent / "scores" / f"{checkpoint.name}.txt").read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_config(run: Path) -> dict[str, Any]:
    """What ``config.yaml`` of a training run says.

    Args:
        run: the run's output folder.

    Raises:
        RecipeError: when the file is missing, is no YAML, or is not of a training run.
    """
    file = run / "config.yaml"
    try:
        config = load_yaml(file.read_bytes())
    except FileNotFoundError:
        raise RecipeError(
            f"{file} is missing; `run` must be the output folder of a training run, which says "
            "there what model and data it has."
        ) from None
    except (OSError, NoYamlError):
        raise RecipeError(f"{file} is not a YAML file; it may be half-written.") from None
    sections = config if isinstance(config, dict) else {}
    for name, keys in _SECTIONS.items():
        section = sections.get(name)
        missing = [f".{key}" for key in keys if not isinstance(section, dict) or key not in section]
        if missing or not isinstance(section, dict):
            raise RecipeError(
                f"{file} has no section `{name}{(missing or [''])[0]}`, so it is not of a training "
                "run of this package."
            )
    return dict(sections)


def save_model_config(run: Path, config: RetrievalModelConfig) -> None:
    """Write ``model.json``: what builds the run's model without the files it started from.

    Args:
        run: the run's output folder.
        config: of :func:`~atr_moco_plugin.model.built_config`.
    """
    write_atomically(run / MODEL_FILE, json.dumps(asdict(config), indent=2) + "\n")


def read_model_config(run: Path) -> dict[str, Any]:
    """What :func:`save_model_config` wrote, as a nested mapping.

    Raises:
        RecipeError: when the file is missing or cannot be read.
    """
    file = run / MODEL_FILE
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise RecipeError(
            f"{file} is missing; it is in the output folder of every training run and says what "
            "model it has."
        ) from None
    except (ValueError, RecursionError):
        raise RecipeError(f"{file} cannot be read; it may be half-written.") from None
    try:
        if not isinstance(values, dict):
            raise InputError("it is not an object.")
        model_config(values)
    except ValueError as ex:
        raise RecipeError(f"{file} does not describe a model: {ex}") from None
    return values


def read_state(checkpoint: Path) -> list[dict[str, Tensor]]:
    """The tensors of a checkpoint, one mapping for each shard that it was saved in.

    Args:
        checkpoint: a folder ``step_N``.

    Raises:
        RecipeError: naming the file, when there is none or it cannot be read.
    """
    files = sorted((checkpoint / "model").rglob("*.pt"))
    if not files:
        raise RecipeError(
            f"{checkpoint / 'model'} holds no file `*.pt`; choose another with `checkpoint=step_N`."
        )
    shards = []
    for file in files:
        try:
            # Mapped into memory: queues and momentum copies are not wanted and not read.
            state = read_torch(file, mmap=True)
        except (InputError, OSError) as ex:
            reason = str(ex).removeprefix(f"{file} ")
            raise RecipeError(
                f"{file} cannot be read as a checkpoint; it {reason} Choose another with "
                "`checkpoint=step_N`."
            ) from None
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(x, Tensor) for name, x in state.items()
        ):
            raise RecipeError(f"{file} is not a model checkpoint: it must map names to tensors.")
        shards.append(state)
    return shards


def load_model(model: Module, shards: Sequence[Mapping[str, Tensor]], checkpoint: Path) -> None:
    """Put the weights of a training checkpoint, which holds the whole criterion, into its model.

    Args:
        model: the model to fill, built with the run's configuration.
        shards: from :func:`read_state`. What FSDP split along the first dimension is put together.
        checkpoint: where they come from, for messages.

    Raises:
        RecipeError: when names or shapes are another model's, naming the first few.
    """
    own = model.state_dict()
    prefix = "model." if any(name.startswith("model.") for name in shards[0]) else ""
    saved = {name.removeprefix(prefix) for name in shards[0] if name.startswith(prefix)}
    problems = {"missing": sorted(own.keys() - saved), "unknown": sorted(saved - own.keys())}
    state = {}
    for name in own.keys() & saved:
        parts = [shard[prefix + name] for shard in shards if prefix + name in shard]
        if len(parts) < len(shards) or not all(map(is_weights, parts)):
            problems.setdefault("without numbers", []).append(name)
            continue
        # Compared before memory is taken for the whole.
        shape, whole = own[name].shape, _joined_shape(parts)
        if shape in (whole, parts[0].shape):
            state[name] = parts[0] if parts[0].shape == shape else torch.cat(parts)
        else:
            shapes = f"{name} {list(whole)} for {list(shape)}"
            problems.setdefault("of another shape", []).append(shapes)
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(map(one_line, sorted(names)[:_NAMED]))}"
            f"{', ...' if len(names) > _NAMED else ''}"
            for kind, names in problems.items()
            if names
        )
        raise RecipeError(
            f"{checkpoint} is a checkpoint of another model than its run's config.yaml "
            f"describes ({listed})."
        )
    model.load_state_dict(state)


def _joined_shape(parts: Sequence[Tensor]) -> torch.Size:
    """The shape of tensors joined along their first dimension, that of the first where they do
    not fit together."""
    rows = {x.shape[1:] if x.dim() else None for x in parts}
    if len(rows) > 1 or None in rows:
        return parts[0].shape
    return torch.Size([sum(map(len, parts)), *parts[0].shape[1:]])
