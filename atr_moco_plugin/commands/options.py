"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atr_moco_plugin.retriever import AudioTextRetriever


def positive(text: str) -> int:
    """An integer of 1 or more, for ``type=`` of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def add_model(parser: argparse.ArgumentParser, *, required: bool = True, more: str = "") -> None:
    """``--model`` and how it runs.

    Args:
        parser: of a command.
        required: whether the command has no other way to know the model.
        more: said of ``--model`` beside what it is.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="BUNDLE",
        required=required,
        help="a folder that `export` made, a name on the Hugging Face Hub, or a ClapModel" + more,
    )
    group.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the model's computations (default: float32)",
    )
    group.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="windows at once (default: 16)"
    )


def load_retriever(options: argparse.Namespace, name: str | None = None) -> AudioTextRetriever:
    """The retriever of the options; ``name`` is taken where ``--model`` is not given."""
    from atr_moco_plugin.retriever import AudioTextRetriever

    return AudioTextRetriever.from_pretrained(
        options.model or name,
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size,
    )
