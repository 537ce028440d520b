"""What a run starts from: pretrained encoders, random weights, or an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fairseq2.recipe.error import RecipeError
from torch.nn import Module

from atr_moco_plugin.hosts.fairseq2.runs import find_checkpoint

KINDS = ("pretrained", "random")


class Source(NamedTuple):
    """Where an earlier run's weights lie.

    Attributes:
        model: a model file, or a checkpoint's ``model`` folder.
        tokenizer: the tokenizer they were trained with, where the run's folder has one.
    """

    model: Path
    tokenizer: Path | None


def find_source(init: str) -> Source | None:
    """The files ``init`` names, None for ``pretrained`` and ``random``.

    Raises:
        RecipeError: when it is neither of the two nor a run, a checkpoint or a file.
    """
    if init in KINDS:
        return None
    path = Path(init).expanduser()
    if path.is_file():
        return Source(path, None)
    if not path.exists():
        raise RecipeError(
            f"`init` is {init!r}, but must be {' or '.join(KINDS)}, or the folder of an earlier "
            "run, one of its `checkpoints/step_N` folders, or a model file; there is none there."
        )
    run, step = find_checkpoint(path)
    tokenizer = run / "tokenizer"
    return Source(step / "model", tokenizer if tokenizer.is_dir() else None)


def check_pretrained(model: Module) -> None:
    """Refuse a model with an encoder that could have been pretrained and is not.

    Raises:
        RecipeError: naming the key that is missing.
    """
    for part, encoder in (("audio", model.audio.encoder), ("text", model.text.encoder)):
        option = getattr(encoder, "weights_option", None)
        if option is not None and getattr(encoder.config, option) is None:
            raise RecipeError(
                f"`init` is pretrained, but the {part} encoder has no weights to start from: set "
                f"`model.config_overrides.{part}.config.{option}` to where they are, or "
                "`init=random` to start it from random weights."
            )
