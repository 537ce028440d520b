"""Weights files of other projects: fetched, verified, read without running code, and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.checkpoints import DamagedFileError, read_torch
from atr_moco_plugin.io.digests import sha256_of

ModelT = TypeVar("ModelT", bound=nn.Module)

_REMEDY = "give the weights and the configuration of one model"


def fetch(repository: str, files: Sequence[str], subject: str) -> Path:
    """The first of some files that a repository on the Hugging Face Hub, or its cache, has.

    Args:
        repository: ``OWNER/REPO``.
        files: names of files in it.
        subject: the beginning of the message, such as ``"The weights x are"``.

    Raises:
        MissingFileError: when there is none, or no network.
    """
    try:
        for file in files[:-1]:
            try:
                return Path(hf_hub_download(repository, file))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, files[-1]))
    except (EntryNotFoundError, OSError, ValueError) as error:
        raise MissingFileError(
            f"{subject} not to be had from the Hugging Face Hub ({type(error).__name__}): download "
            "it where there is a network and give the local path."
        ) from error


def digest_problems(sha256: str | None, pretrained: str | None) -> Iterator[str]:
    """What is wrong with the options ``sha256`` and ``pretrained`` of an encoder."""
    if sha256 is None:
        return
    if pretrained is None:
        yield (
            "`sha256` is the digest of a weights file: set `pretrained` as well, or leave "
            "`sha256` out."
        )
    if len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"):
        yield f"`sha256` is {sha256!r}, expected 64 hexadecimal digits."


def verify(path: Path, sha256: str | None) -> None:
    """Compare a file with its expected SHA-256 in hexadecimal; ``None`` accepts any.

    Raises:
        InputError: when the digest differs.
    """
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256.lower():
        raise InputError(
            f"{path} has SHA-256 {found}, expected {sha256.lower()}; download it "
            "again or correct `sha256`."
        )


def read_weights(
    path: Path, kind: str, safe_globals: Iterable[Any] = ()
) -> tuple[Any, Mapping[str, str]]:
    """The content of a weights file, on the CPU, without running code from it.

    Args:
        path: a ``.safetensors`` file, or a file of ``torch.save``.
        kind: what it should be, for the message, such as ``"a BEATs checkpoint"``.
        safe_globals: classes that a file of ``torch.save`` may name.

    Returns:
        Tensors by name (``.safetensors``) or whatever was saved, and the metadata of the file.

    Raises:
        InputError: for a file that is damaged, of another format, or names other classes.
    """
    try:
        if path.suffix != ".safetensors":
            return read_torch(path, safe_globals=safe_globals), {}
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return tensors, file.metadata() or {}
    except Exception as error:  # a truncated or foreign file raises nearly anything
        whole = isinstance(error, InputError) and not isinstance(error, DamagedFileError)
        reason = "is truncated, damaged or of another format; download it again."
        if whole:
            reason = str(error).removeprefix(f"{path} ")
        raise InputError(f"{path} cannot be read as {kind}: it {reason}") from error


def check_state(state: object, path: Path) -> dict[str, Tensor]:
    """Check that ``state``, read from ``path``, is a state dict: dense tensors of numbers by name.

    Raises:
        InputError: naming the values that are no weights, see :func:`is_weights`.
    """
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{path} must hold a state dict, that is, tensors by name.")
    strange = [name for name, value in state.items() if not is_weights(value)]
    if strange:
        raise InputError(
            f"{path} has no plain tensor of numbers for {listed(strange)}; save the model's state "
            "dict again."
        )
    return state


def load(
    make: Callable[[], ModelT],
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    layers: int,
    config: str,
    shown: Callable[[str], str] = str,
) -> ModelT:
    """A model with every tensor of ``state``, which must have exactly its names and shapes.

    Checked before memory is taken: a configuration may ask for any size.

    Args:
        make: builds the model.
        state: tensors under the model's names.
        path: the file that they come from.
        layers: how many the configuration asks for.
        config: where the configuration is, such as ``"its config.json"``.
        shown: the name of a parameter in messages.

    Raises:
        InputError: naming the parameters that are missing, unexpected or of another shape.
    """
    if layers > len(state):
        raise InputError(
            f"{path} has {len(state)} tensors, too few for the {layers} layers of {config}; "
            f"{_REMEDY}."
        )
    try:
        with torch.device("meta"):
            expected = make().state_dict()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise InputError(f"{path}: {config} asks for a model of an impossible size.") from error
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit {config}: missing {listed(map(shown, missing))}, unexpected "
            f"{listed(map(shown, unexpected))}; {_REMEDY}."
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{path} has {shown(name)} of shape {list(state[name].shape)} where {config} asks "
                f"for {list(tensor.shape)}; {_REMEDY}."
            )
    model = make()
    model.load_state_dict(state)
    return model


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first names in order and how many more there are, each as :func:`one_line`."""
    ordered = sorted(set(map(one_line, names)))
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return (", ".join(ordered[:limit]) or "none") + more


def one_line(name: str) -> str:
    """A name from a file, for a message: control characters and the like as escapes."""
    return repr(name)[1:-1]


def is_weights(value: object) -> bool:
    """Whether a parameter can be loaded from a value: a dense tensor of numbers, not sparse,
    quantised or complex, nor a shape without numbers."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
    )
