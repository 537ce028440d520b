"""A bundle of a ``Trainer`` checkpoint, from the weights and what ``MocoCallback`` wrote beside."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.criterion.matching_start import head_is_trained
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.transformers.model.shared import restore_shared
from atr_moco_plugin.hosts.transformers.trainer.description import FILE, FOLDER
from atr_moco_plugin.hosts.transformers.trainer.resume import problem_with, read_weights
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.model import build_model, model_config
from atr_moco_plugin.model.adapters import merged_state
from atr_moco_plugin.plugins import load
from atr_moco_plugin.retriever.bundle import FEATURE_EXTRACTOR, TOKENIZER, BundleConfig, read_json
from atr_moco_plugin.retriever.clap import clap_pair
from atr_moco_plugin.retriever.exported import SCORE, Exported, ExportOptions
from atr_moco_plugin.text.checks import check_tokenizer, text_positions
from atr_moco_plugin.text.tokenizer import load_tokenizer

_MODEL, _OWN, _TEMPERATURE = "criterion.model.", "criterion.", "criterion.temperature"
_START = "criterion.matching_start."
_MAX_TOKENS = 77  # as ClapCollator cuts


def export_run(run: Path, options: ExportOptions) -> Exported:
    """What a bundle of a checkpoint is written from.

    Args:
        run: ``TrainingArguments.output_dir``, or one of its ``checkpoint-N``.
        options: what is wanted otherwise. ``checkpoint`` is ``best`` (what ``Trainer`` recorded as
            such, else the newest whole one), ``last`` or ``checkpoint-N``.

    Raises:
        InputError: naming the file that is missing or cannot be read, or what the run does not say.
    """
    if options.figures is not None:
        raise InputError(
            "--figures is for runs of fairseq2; a checkpoint of Trainer has its own in "
            "trainer_state.json: leave it out."
        )
    folder = find_checkpoint(run, options.checkpoint)
    described = folder / FOLDER / FILE
    if not described.is_file():
        raise InputError(
            f"{described} is missing, which MocoCallback writes beside each checkpoint of a "
            "ClapTrainerModel or of a model of build_model; towers that were put together by hand "
            "have no name to build them by, so no bundle can be made of them."
        )
    known = _without_adapters(read_json(described))
    weights = merged_state(_weights(folder))
    origin = known.pop("origin", {})
    criterion = load("criteria", str(origin.get("criterion")))
    seconds = options.window_seconds or known.pop("window_seconds", None)
    if seconds is None:
        raise InputError(
            f"{described} does not say how long a sound may be, since the run had a collator of "
            "its own: give --window SECONDS, the length that it was evaluated with."
        )
    extractor = _feature_extractor(folder, known, options)
    model = _model(known, described)
    _load(model, weights, folder)
    encoder: Any = extractor or model.audio.encoder
    most = getattr(encoder, "max_seconds" if extractor is None else "max_length_s", None)
    window, hop = options.windows(float(seconds), most=most)
    tokenizer = _tokenizer(folder, options)
    max_tokens = known.pop("max_tokens", None)
    if max_tokens is None:
        max_tokens = min(_MAX_TOKENS, text_positions(model.text.encoder) or _MAX_TOKENS)
    check_tokenizer(tokenizer, model.text.encoder, max_tokens)
    values = {
        **known,
        "window_seconds": window,
        "hop_seconds": hop,
        "max_tokens": max_tokens,
        "temperature": _temperature(weights, folder),
        "score": SCORE if _matches(criterion, weights) else None,
        "origin": {"run": folder.parent.name, "checkpoint": folder.name, **origin},
    }
    factor = None
    if hasattr(criterion, "distance_factor"):
        own = {x.removeprefix(_OWN): t for x, t in weights.items() if not x.startswith(_MODEL)}
        factor = criterion.distance_factor(own)
    return Exported(
        config=build_config(BundleConfig, values, str(described)),
        model=model,
        tokenizer=tokenizer,
        feature_extractor=extractor,
        factor=factor,
        figures=_figures(folder),
    )


def find_checkpoint(run: Path, which: str | None) -> Path:
    """The checkpoint's folder that a path and a name mean.

    An export needs the weights alone, so a checkpoint without an optimizer will do.

    Raises:
        InputError: where there is none, or it is not whole.
    """
    run = run.resolve()
    if (run / "trainer_state.json").is_file() and not any(run.glob("checkpoint-*")):
        if which not in (None, run.name):
            raise InputError(
                f"{run} is a checkpoint, but --checkpoint is {which!r}: leave it out, or give the "
                f"run's folder, {run.parent}."
            )
        folder = run
    elif which in (None, "best", "last"):
        folder = _newest(run)
        if which != "last":
            best = read_json(folder / "trainer_state.json").get("best_model_checkpoint")
            # The run may have been moved since; the best one may have been of an earlier run.
            if best is not None and (run / Path(str(best)).name).is_dir():
                folder = run / Path(str(best)).name
    else:
        folder = run / str(which)
        if not folder.is_dir():
            names = ", ".join(x.name for _, x in step_folders(run, "checkpoint-"))
            raise InputError(
                f"{run} has no checkpoint {which!r}; choose best, last or one of {names}."
            )
    if (problem := problem_with(folder)) is not None:
        raise InputError(f"{folder} {problem}: choose another one with --checkpoint.")
    return folder


def _newest(run: Path) -> Path:
    """The newest whole checkpoint; those that are passed over are warned of."""
    problem = "has no checkpoint-N"
    for _, folder in reversed(step_folders(run, "checkpoint-")):
        found = problem_with(folder)
        if found is None:
            return folder
        problem = f"{folder.name} {found}"
        warnings.warn(f"{folder} {found}; it is passed over.", stacklevel=2)
    raise InputError(f"{run} has no checkpoint that can be exported: {problem}.")


def _weights(folder: Path) -> dict[str, Tensor]:
    """The online model of a checkpoint, and the tensors that are the criterion's own."""
    return {
        name: x
        for part in read_weights(folder)
        for name, x in part.items()
        if name.startswith((_MODEL, _START)) or "." not in name.removeprefix(_OWN)
    }


def _without_adapters(known: dict[str, Any]) -> dict[str, Any]:
    """The description of a model whose adapters are merged."""
    model = known.get("model")
    if known.get("kind") == "retrieval" and isinstance(model, dict):
        known["model"] = asdict(model_config(model).without_adapters())
    return known


def _model(known: Mapping[str, Any], file: Path) -> Any:
    """The model with random weights."""
    options, kind = known.get("model"), known.get("kind")
    if not isinstance(options, dict) or kind not in ("clap", "retrieval"):
        raise InputError(f"{file} does not describe a model; it may be of another version.")
    with torch.random.fork_rng([]):
        if kind == "retrieval":
            return build_model(model_config(options))
        try:
            clap = ClapModel(ClapConfig.from_dict(dict(options["clap"])))
        except Exception as ex:  # any key may be missing or wrong
            raise InputError(f"{file} does not describe a ClapModel ({type(ex).__name__}).") from ex
        head = options.get("head")
        head = None if head is None else build_config(FusionHeadConfig, head, "model.head")
        return clap_pair(clap, head)


def _load(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    state = {x.removeprefix(_MODEL): t for x, t in weights.items() if x.startswith(_MODEL)}
    restore_shared(model, state, "")
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [x for x in own if x in state and own[x].shape != state[x].shape]
    if wrong:
        raise InputError(
            f"{folder} has other weights than {FOLDER}/{FILE} in it describes ({wrong[0]}, "
            f"{len(wrong)} in all): it is of another run or version."
        )
    model.load_state_dict(state)
    model.requires_grad_(False).eval()


def _temperature(weights: Mapping[str, Tensor], folder: Path) -> float:
    if _TEMPERATURE not in weights:
        raise InputError(f"{folder} has no {_TEMPERATURE}: it is not of a TrainerModel.")
    return float(weights[_TEMPERATURE].float().clamp(*TEMPERATURE_RANGE))


def _matches(criterion: Any, weights: Mapping[str, Tensor]) -> bool:
    """Whether the matching head is trained."""
    return "loss_atm" in criterion.measures and head_is_trained(weights, _OWN)


def _tokenizer(folder: Path, options: ExportOptions) -> Any:
    own = folder / FOLDER / TOKENIZER
    if own.is_dir() and options.tokenizer is not None:
        raise InputError(
            f"--tokenizer is for runs that keep none, but there is {own}: leave it out."
        )
    if not own.is_dir() and options.tokenizer is None:
        raise InputError(
            f"{own} is missing, since the run had a collator of its own: give --tokenizer NAME."
        )
    return load_tokenizer(str(own) if options.tokenizer is None else options.tokenizer)


def _feature_extractor(
    folder: Path, known: dict[str, Any], options: ExportOptions
) -> ClapFeatureExtractor | None:
    if known.get("kind") != "clap":
        return None
    own = folder / FOLDER / FEATURE_EXTRACTOR
    source = own if own.is_dir() else options.tokenizer
    if source is None:
        raise InputError(
            f"{own} is missing, since the run had a collator of its own: give --tokenizer NAME, "
            "with the name of a ClapModel or a folder with its tokenizer and "
            "preprocessor_config.json."
        )
    try:
        extractor = ClapFeatureExtractor.from_pretrained(source)
    except Exception as ex:  # damaged files raise nearly anything
        raise InputError(
            f"{source} has no feature extractor that can be read ({type(ex).__name__})."
        ) from ex
    known["sample_rate"] = int(extractor.sampling_rate)
    known.setdefault("window_seconds", float(extractor.max_length_s))
    return extractor


def _figures(folder: Path) -> dict[str, Any]:
    """Retrieval figures that ``compute_metrics`` made in this checkpoint's step."""
    state = read_json(folder / "trainer_state.json")
    found: dict[str, Any] = {}
    for entry in state.get("log_history") or []:
        if not isinstance(entry, dict) or entry.get("step") != state.get("global_step"):
            continue
        for key in entry:
            if match := re.fullmatch(r"(eval_(?:(.+)_)?)r_sum", key):
                own = {x.removeprefix(match[1]): y for x, y in entry.items()}
                found[match[2] or "evaluation"] = {"dual": own}
    return found
