"""A bundle of a LAION-CLAP training: its towers as a ``ClapModel``, with the matching head."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.laion_clap.convert import SECONDS, clap_model, feature_extractor
from atr_moco_plugin.hosts.laion_clap.weights import read_towers
from atr_moco_plugin.retriever.bundle import BundleConfig
from atr_moco_plugin.retriever.clap import clap_options, clap_pair
from atr_moco_plugin.retriever.exported import SCORE, Exported, ExportOptions
from atr_moco_plugin.text.checks import check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer

MAX_TOKENS = 77
"""To which LAION-CLAP cuts and pads captions."""

_TOKENIZER = "roberta-base"
_FILLING = "repeatpad"  # what LAION-CLAP's own inference takes
_EPOCH = re.compile(r"epoch_(\d+)\.pt")


def export_run(run: Path, options: ExportOptions) -> Exported:
    """What a bundle of a checkpoint is written from.

    Short sounds are filled up as in training where ``params.txt`` is beside the folder of the
    checkpoints; otherwise repeated, as LAION-CLAP's own inference does.

    Args:
        run: ``epoch_N.pt``, or the folder ``logs/NAME`` of a training, of which the last epoch is
            taken.
        options: what is wanted otherwise. The tokenizer is ``roberta-base`` unless one is given.

    Raises:
        InputError: for a file that is missing, damaged or no checkpoint of LAION-CLAP, and for
            towers that ``ClapModel`` has not, by their names.
    """
    if options.figures is not None:
        raise InputError("--figures is for runs of fairseq2: leave it out.")
    file = find_checkpoint(run, options.checkpoint)
    state, head = read_towers(file)
    clap = clap_model(state)
    params = read_params(file.parent.parent / "params.txt")
    window, hop = options.windows(SECONDS, most=SECONDS)
    # Its head was trained on the means over frequencies.
    pair = clap_pair(clap, head_config(head), mean_frequencies=True)
    if head:
        _load_head(pair.head, head, file)
    extractor = feature_extractor(state, params.get("data_filling", _FILLING))
    tokenizer = load_tokenizer(options.tokenizer or _TOKENIZER)
    check_tokenizer(tokenizer, clap.text_model, MAX_TOKENS)
    low, high = TEMPERATURE_RANGE
    config = BundleConfig(
        kind="clap",
        model=clap_options(clap.config, head_config(head), mean_frequencies=True),
        sample_rate=int(extractor.sampling_rate),
        window_seconds=window,
        hop_seconds=hop,
        max_tokens=MAX_TOKENS,
        temperature=min(max(math.exp(-float(state["logit_scale_a"])), low), high),
        score=SCORE if head else None,
        origin=_origin(file, params, trained_here=bool(head)),
    )
    return Exported(
        config=config, model=pair.eval(), tokenizer=tokenizer, feature_extractor=extractor
    )


def find_checkpoint(run: Path, which: str | None) -> Path:
    """The file of a checkpoint.

    Raises:
        InputError: where there is none of that name.
    """
    if run.is_file():
        if which is not None:
            raise InputError(f"{run} is a checkpoint: leave --checkpoint out.")
        return run
    folder = run / "checkpoints"
    epochs = {
        int(match[1]): file
        for file in folder.glob("epoch_*.pt")
        if (match := _EPOCH.fullmatch(file.name))
    }
    if which in (None, "best", "last") and epochs:
        if which == "best":
            raise InputError(
                f"{run} does not say which checkpoint is the best: give --checkpoint last or one "
                "such as epoch_10."
            )
        return epochs[max(epochs)]
    for file in epochs.values():
        if which in (file.name, file.stem):
            return file
    names = ", ".join(epochs[number].stem for number in sorted(epochs)) or "none"
    raise InputError(f"{folder} has no checkpoint {which or 'epoch_N.pt'!r}; it has {names}.")


def head_config(head: Mapping[str, Tensor]) -> FusionHeadConfig | None:
    """Size of a matching head, from the names of its weights; None where there are none."""
    layers = {name.split(".")[1] for name in head if name.startswith("blocks.")}
    return FusionHeadConfig(layers=len(layers)) if layers else None


def read_params(file: Path) -> dict[str, str]:
    """LAION-CLAP's arguments of a training, as it writes them; empty where there is no file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(": ") for line in lines)
    return {name: value for name, separator, value in pairs if separator}


def _load_head(module: Any, head: Mapping[str, Tensor], file: Path) -> None:
    try:
        module.load_state_dict(dict(head))
    except RuntimeError as ex:
        said = " ".join(str(ex).split())
        raise InputError(f"The matching head of {file} is of another version ({said}).") from ex


def _origin(file: Path, params: Mapping[str, str], *, trained_here: bool) -> dict[str, Any]:
    found = _EPOCH.fullmatch(file.name)
    return {
        "host": "laion_clap",
        "run": params.get("name"),
        "checkpoint": file.stem,
        "epoch": int(found[1]) if found else None,
        "seed": params.get("seed"),
        "data": params.get("datasetnames"),
        "architecture": " + ".join(params[x] for x in ("amodel", "tmodel") if x in params) or None,
        "matching head": trained_here,
    }
