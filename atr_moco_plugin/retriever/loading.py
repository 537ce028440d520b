"""From a name to a model that can be used: a bundle, or a public ``ClapModel``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from atr_moco_plugin.data.loading.batch import pad_waveforms
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.plugins import available
from atr_moco_plugin.retriever.backbone import Backbone, Samples
from atr_moco_plugin.retriever.bundle import (
    CONFIG,
    PARTS,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    bundle_fingerprint,
    is_bundle,
    read_bundle,
    read_json,
)
from atr_moco_plugin.text.tokenizer import load_tokenizer


def load_backbone(
    name: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> Backbone:
    """Load a model, on the CPU and in eval mode.

    Args:
        name: a folder, or a name on the Hugging Face Hub.
        revision: branch, tag or commit on the hub.
        local_files_only: take what the hub's cache has and ask no network.

    Raises:
        InputError: if it is not there, damaged or of another kind.
    """
    folder, loaded_from = find_model(name, revision, local_files_only)
    if is_bundle(folder):
        return _of_bundle(read_bundle(folder), loaded_from)
    kind = read_json(folder / CONFIG).get("model_type")
    raise InputError(
        f"{name} is neither a bundle nor a ClapModel, but a model of the type {kind!r}: give the "
        "folder that `python -m atr_moco_plugin export` made, or a ClapModel."
    )


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
        if (folder / CONFIG).is_file():
            return folder.resolve(), str(folder.resolve())
        if (folder / "checkpoints").is_dir() or list(folder.glob("checkpoint-*")):
            raise InputError(
                f"{folder} is the folder of a training run: make a bundle of it with "
                f"`python -m atr_moco_plugin export {folder} BUNDLE` and give that."
            )
        raise MissingFileError(
            f"{folder} has no {CONFIG}: give the folder of a bundle or of a ClapModel."
        )
    text = str(name)
    if folder.exists() or Path(text).is_absolute() or text.startswith((".", "~")):
        raise MissingFileError(f"There is no model folder {name}: correct the path.")
    try:
        found = snapshot_download(
            text,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*.md"],
        )
    except Exception as ex:  # no network, no such name, no access
        raise MissingFileError(
            f"{text} is no folder, and not to be had from the Hugging Face Hub "
            f"({type(ex).__name__}): correct the name, or download it where there is a network and "
            "give the folder."
        ) from ex
    return Path(found), text


def _of_bundle(bundle: Bundle, name: str) -> Backbone:
    tokenizer = load_tokenizer(str(bundle.folder / TOKENIZER))
    model = _retrieval_model(bundle)
    encoder = model.audio.encoder
    return Backbone(
        name,
        bundle_fingerprint(bundle),
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
    return _with_state(model, bundle)


def _with_state(model: RetrievalModel, bundle: Bundle) -> RetrievalModel:
    file, expected = bundle.folder / WEIGHTS, model.state_dict()
    names = sorted(expected.keys() ^ bundle.state.keys())
    if names:
        raise InputError(
            f"{file} does not fit the model of {CONFIG}: {names[0]} is only in one of the two "
            f"({len(names)} such names); export the bundle again" + _versions(bundle)
        )
    for key, tensor in expected.items():
        if tensor.shape != bundle.state[key].shape:
            raise InputError(
                f"{file} has {key} of shape {list(bundle.state[key].shape)}, but {CONFIG} asks for "
                f"{list(tensor.shape)}; export the bundle again" + _versions(bundle)
            )
    model.load_state_dict(bundle.state)
    model.requires_grad_(False).eval()
    return model


def _versions(bundle: Bundle) -> str:
    packages = sorted(set(bundle.config.packages.values()))
    return f", or install what it was made with: {', '.join(packages)}." if packages else "."


def _padded(waveforms: Sequence[Samples]) -> dict[str, Tensor]:
    padded, lengths = pad_waveforms(waveforms)
    return {"waveforms": padded, "lengths": lengths}


def _ids_and_mask(input_ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"input_ids": input_ids, "mask": mask}
