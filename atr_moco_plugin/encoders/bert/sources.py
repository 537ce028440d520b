"""Where pretrained files come from: a local folder, an installed package, the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from atr_moco_plugin.encoders.weights import fetch, verify
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def find_folder(name_or_path: str, wanted: Sequence[str]) -> Path | None:
    """Folder that holds a file of one of the names ``wanted``, without asking the network.

    ``name_or_path`` is a local folder or the name of an installed pip package that carries such a
    folder; the package is not imported.

    Returns:
        The folder, or ``None`` if ``name_or_path`` can only be a Hugging Face name.

    Raises:
        FileNotFoundError: it is a local folder without such a file, or is written like a path
            (``./x``, ``/x``, ``~/x``) and does not exist.
        InputError: the package carries more than one such folder.
    """
    folder = expanded(name_or_path, "the text encoder's or tokenizer's folder")
    if folder.is_dir():
        if not any((folder / name).is_file() for name in wanted):
            raise MissingFileError(
                f"The folder {name_or_path} holds none of {', '.join(wanted)}: "
                "give the folder that a model was saved to."
            )
        return folder
    if folder.is_absolute() or name_or_path.startswith((".", "~")):
        raise MissingFileError(
            f"There is no folder {name_or_path}: correct the path, or give the name of a pip "
            "package or of a Hugging Face model."
        )
    return _package_folder(name_or_path, wanted)


def _package_folder(name: str, wanted: Sequence[str]) -> Path | None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return None
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return None
    found = {Path(str(file.locate())) for file in files if file.name in wanted}
    folders = sorted({path.parent for path in found if path.is_file()})
    if len(folders) > 1:
        raise InputError(
            f"The package {name} carries {len(folders)} model folders: give the path of one, "
            f"such as {folders[0]}."
        )
    return folders[0] if folders else None


def find_weights(name_or_path: str, sha256: str | None = None) -> Path:
    """Weights file of ``name_or_path``, with ``config.json`` in the same folder.

    Looks for a local folder, then for an installed package, then in the Hugging Face Hub or its
    cache. ``model.safetensors`` is preferred to ``pytorch_model.bin``.

    Args:
        name_or_path: see :attr:`BertConfig.pretrained`.
        sha256: expected digest of the weights file, or ``None``.

    Raises:
        FileNotFoundError: no such weights, or no ``config.json`` beside them.
        InputError: the file has another digest.
    """
    folder = find_folder(name_or_path, WEIGHT_FILES)
    if folder is None:
        weights = _download(name_or_path)
    else:
        weights = next(folder / name for name in WEIGHT_FILES if (folder / name).is_file())
    if not weights.with_name(CONFIG_FILE).is_file():
        raise MissingFileError(
            f"{weights.parent} holds {weights.name} but no {CONFIG_FILE}: save both into one "
            "folder."
        )
    verify(weights, sha256)
    return weights


def _download(name: str) -> Path:
    subject = (
        f"The BERT weights '{name}' are neither a local folder, nor an installed pip package with "
        "model files, and"
    )
    fetch(name, [CONFIG_FILE], subject)
    return fetch(name, WEIGHT_FILES, subject)
