"""fairseq2 host: what makes the package a recipe of fairseq2.

``config`` is what a user can set, ``runs`` the folder that a run leaves, ``evaluation`` the figures
of a split, ``training`` the run itself. ``config`` and ``runs`` may not import the other two, and
``evaluation`` may not import ``training``. ``setup`` registers the model family, the data sets and
the optimizer; ``compat`` has the private names of fairseq2 and what differs between its versions.
May not import another host or a recipe.

Importing this package makes fairseq2 importable on a machine without a system libsndfile.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any


def setup_fairseq2_extension(container: Any) -> None:
    """Entry point of group ``fairseq2.extension``: register everything in fairseq2's container."""
    from atr_moco_plugin.hosts.fairseq2.setup import register_all

    register_all(container)


def _preload_libsndfile() -> None:
    """fairseq2n wants libsndfile from the system; the soundfile wheel carries one."""
    spec = importlib.util.find_spec("_soundfile_data")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in Path(folder).glob("libsndfile*"):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_preload_libsndfile()
