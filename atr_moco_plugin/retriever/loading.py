"""From a name to a model that can be used: a bundle, or a public ``ClapModel``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from atr_moco_plugin.data.loading.batch import pad_waveforms
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.plugins import available
from atr_moco_plugin.retriever.backbone import Backbone, Samples, load_state, min_seconds
from atr_moco_plugin.retriever.bundle import (
    CONFIG,
    PARTS,
    TOKENIZER,
    Bundle,
    BundleConfig,
    bundle_fingerprint,
    is_bundle,
    read_bundle,
    read_config,
    read_json,
)
from atr_moco_plugin.retriever.clap import clap_of_bundle, public_clap, public_fingerprint
from atr_moco_plugin.text.checks import check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer_for


def load_backbone(
    name: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> Backbone:
    """Load a model, on the CPU and in eval mode.

    Args:
        name: a folder, or a name on the Hugging Face Hub, perhaps with ``@revision``.
        revision: branch, tag or commit on the hub.
        local_files_only: take what the hub's cache has and ask no network.

    Raises:
        InputError: if it is not there, damaged or of another kind.
    """
    folder, loaded_from = find_model(name, revision, local_files_only)
    if is_bundle(folder):
        bundle = read_bundle(folder)
        make = clap_of_bundle if bundle.config.kind == "clap" else _of_bundle
        backbone = make(bundle, loaded_from)
        _check(backbone)
        return backbone
    kind = read_json(folder / CONFIG).get("model_type")
    if kind == "clap":
        return public_clap(folder, loaded_from)
    raise InputError(
        f"{name} is neither a bundle nor a ClapModel, but a model of the type {kind!r}: give the "
        "folder that `atr-moco export` made, or a ClapModel."
    )


def fingerprint_of(folder: Path) -> str:
    """The fingerprint of the model that a folder has now, without loading it.

    Raises:
        InputError: for a bundle with files that are not its own.
    """
    if is_bundle(folder):
        return bundle_fingerprint(folder, read_config(folder))
    return public_fingerprint(folder)


def find_model(
    name: str | Path, revision: str | None = None, local_files_only: bool = False
) -> tuple[Path, str]:
    """The folder of a model, downloaded where it is a name on the hub, and the name that loads it
    again.

    Raises:
        InputError: if it is not there.
    """
    folder = expanded(name, "model")
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"{folder} is a folder, which has no revisions, but `revision` is {revision!r}: "
                "leave it out."
            )
        if (folder / CONFIG).is_file():
            return folder.resolve(), str(folder.resolve())
        if (folder / "checkpoints").is_dir() or list(folder.glob("checkpoint-*")):
            raise InputError(
                f"{folder} is the folder of a training run: make a bundle of it with "
                f"`atr-moco export {folder} BUNDLE` and give that."
            )
        raise MissingFileError(
            f"{folder} has no {CONFIG}: give the folder of a bundle or of a ClapModel."
        )
    text, _, at = str(name).partition("@")
    if at and revision not in (None, at):
        raise InputError(
            f"{name} names the revision {at!r}, and `revision` {revision!r}: give one."
        )
    revision = revision or at or None
    if folder.exists() or folder.is_absolute() or text.startswith((".", "~")):
        raise MissingFileError(f"There is no model folder {name}: correct the path.")
    wanted = ["*.json", "*.txt", "*.model", "*.md", "*.safetensors"]
    fetch = partial(snapshot_download, text, revision=revision, local_files_only=local_files_only)
    try:
        found = fetch(allow_patterns=wanted)
        if not list(Path(found).glob("*.safetensors")):
            found = fetch(allow_patterns=[*wanted, "*.bin"])
    except Exception as ex:  # no network, no such name, no access
        raise MissingFileError(
            f"There is no folder {text}, and no model of that name can be had from the Hugging "
            f"Face Hub ({type(ex).__name__}): correct the path or the name, or run `hf download "
            f"{text} --local-dir FOLDER` where there is a network and give the folder."
        ) from ex
    return Path(found), text if revision is None else f"{text}@{revision}"


def _check(backbone: Backbone) -> None:
    """Refuse a bundle whose parts contradict each other."""
    config, model, where = backbone.config, backbone.model, backbone.folder / CONFIG
    try:
        check_tokenizer(backbone.tokenizer, cast(Any, model.text.encoder), config.max_tokens)
    except InputError as ex:
        raise InputError(f"{backbone.folder}: {ex}") from ex
    rate = getattr(model.audio.encoder, "sample_rate", config.sample_rate)
    if rate != config.sample_rate:
        raise InputError(
            f"{where} says {config.sample_rate} Hz, but its audio encoder takes {rate} Hz: export "
            "the bundle again"
        )
    longest = getattr(model.audio.encoder, "max_seconds", None)
    if longest is not None and config.window_seconds > longest:
        raise InputError(
            f"{where} has windows of {config.window_seconds:g} s, but its audio encoder takes at "
            f"most {longest:g} s: set `window_seconds` to that or less"
        )
    check_window(config, model, str(where))
    if config.score is not None and model.head is None:
        raise InputError(f"{where} has a `score`, but no matching head: export the bundle again")


def check_window(config: BundleConfig, model: Any, where: str) -> None:
    """Refuse windows that are shorter than any sound that the model takes."""
    least = min_seconds(model)
    if round(config.window_seconds * config.sample_rate) < round(least * config.sample_rate):
        raise InputError(
            f"{where} has windows of {config.window_seconds:g} s, but its audio encoder needs at "
            f"least {least:.3f} s: give a longer window"
        )


def _of_bundle(bundle: Bundle, name: str) -> Backbone:
    model = _retrieval_model(bundle)
    tokenizer = load_tokenizer_for(model.text.encoder, str(bundle.folder / TOKENIZER))
    encoder = model.audio.encoder
    return Backbone(
        name,
        bundle_fingerprint(bundle.folder, bundle.config),
        bundle.config,
        model,
        tokenizer,
        None,
        bundle.folder,
        _padded,
        _ids_and_mask,
        any_padding=getattr(encoder, "any_padding", True),
    )


def _retrieval_model(bundle: Bundle) -> RetrievalModel:
    config = model_config(bundle.config.model)
    for part, group in PARTS.items():
        name = getattr(config, part).name
        package = bundle.config.packages.get(f"{group}/{name}")
        if package is not None and name not in available(group):
            raise InputError(
                f"{bundle.folder} was trained with {name!r} of {package}, which is not installed: "
                f"pip install {package.split(' ')[0]}"
            )
    with torch.random.fork_rng([]):  # random weights are drawn, and replaced
        model = build_model(config)
    load_state(model, bundle)
    return model


def _padded(waveforms: Sequence[Samples]) -> dict[str, Tensor]:
    padded, lengths = pad_waveforms(waveforms)
    return {"waveforms": padded, "lengths": lengths}


def _ids_and_mask(input_ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"input_ids": input_ids, "mask": mask}
