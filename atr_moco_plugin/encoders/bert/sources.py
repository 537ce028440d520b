"""BERT's weights files: in a local folder, an installed package, or the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from atr_moco_plugin.encoders.sources import CONFIG_FILE, WEIGHT_FILES, find_folder
from atr_moco_plugin.encoders.weights import fetch, verify
from atr_moco_plugin.errors import MissingFileError

__all__ = ["CONFIG_FILE", "WEIGHT_FILES", "find_folder", "find_weights"]


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
