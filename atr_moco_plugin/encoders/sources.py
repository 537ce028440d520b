"""Where pretrained files are on this machine: in a local folder, or in an installed package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

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
