"""Fine-tuning from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import joined, nested
from atr_moco_plugin.finetuning.keys import read_config, without_nulls
from atr_moco_plugin.finetuning.pairs import open_pairs
from atr_moco_plugin.finetuning.prepare import prepare
from atr_moco_plugin.hosts.transformers.finetune.loop import run
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.retriever import AudioTextRetriever


def finetune(
    pairs: Iterable[Any] | AudioTextDataset | str | os.PathLike[str],
    *,
    init: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str],
    valid: Iterable[Any] | None = None,
    test: Iterable[Any] | None = None,
    config: Mapping[str, Any] | None = None,
    device: str | None = None,
    tell: Callable[[str], object] = say,
) -> AudioTextRetriever:
    """Fine-tune a model on pairs of sounds and captions, on transformers' ``Trainer``.

    It does what ``python -m atr_moco_plugin.recipes.finetune`` does: sizes and steps are chosen
    from the data and the machine and shown with their reasons, the best checkpoint is evaluated,
    and ``output_dir`` has the figures, the report and the bundle. The same call goes on where an
    earlier one was stopped.

    Args:
        pairs: see :func:`~atr_moco_plugin.finetuning.pairs.open_pairs`; also the path of a folder
            of sounds, which is ``dataset.config_overrides.root``, or an open data set.
        init: what to start from: a bundle, a run, a checkpoint of BEATs or OpenBEATs, a
            ``ClapModel``, or ``random``; None takes what ``config`` says, else ``random``.
        output_dir: of the run.
        valid: pairs to choose the best checkpoint on; None takes a tenth of the sounds out of
            ``pairs``, at least ten and at most a fifth, in whole recordings, drawn by
            ``common.seed``.
        test: pairs for the figures at the end; None draws as many.
        config: keys of the recipe, with dots or nested, such as ``{"regime.num_steps": 500}``.
        device: of the retriever that is returned; None takes a GPU where there is one.
        tell: called with what a user should read.

    Returns:
        The trained model, which ``output_dir/bundle`` has too.

    Raises:
        InputError: for pairs, a start or a configuration that cannot be used, and for an argument
            and a key of ``config`` that say different things.

    Example:
        >>> retriever = finetune(  # doctest: +SKIP
        ...     [("dog.wav", "a dog barks"), ("rain.wav", ["rain", "it pours"]), ...],
        ...     init="models/audiocaps",
        ...     output_dir="runs/mine",
        ... )
    """
    folder = os.fspath(pairs) if isinstance(pairs, (str, os.PathLike)) else None
    dataset = pairs if isinstance(pairs, AudioTextDataset) else None
    brings_splits = folder is not None or dataset is not None
    if brings_splits and (valid is not None or test is not None):
        what = "a folder" if dataset is None else "an open data set"
        raise InputError(
            f"The pairs are {what}, whose splits are its own: leave `valid` and `test` out."
        )
    given = {
        "init": None if init is None else os.fspath(init),
        "dataset.config_overrides.root": folder,
        "dataset.valid_split": None if valid is None else "valid",
        "evaluation.test_split": None if test is None else "test",
    }
    said = nested({key: value for key, value in given.items() if value is not None})
    stated = joined(without_nulls(config or {}), said)
    if stated.get("loop") in (None, "auto"):
        stated["loop"] = "transformers"
    if stated["loop"] == "fairseq2":
        raise InputError(
            "`loop` is fairseq2, but a call from Python trains with transformers' Trainer: leave "
            "it out, or run `python -m atr_moco_plugin.recipes.finetune`."
        )
    if not isinstance(pairs, (str, os.PathLike, AudioTextDataset)):
        seed = read_config(stated)[0].common.seed
        dataset = open_pairs(pairs, valid=valid, test=test, seed=seed)
    out = expanded(output_dir, "output_dir")
    bundle = run(prepare(stated, Path(out), dataset=dataset, tell=tell))
    return AudioTextRetriever.from_pretrained(bundle, device=device)
