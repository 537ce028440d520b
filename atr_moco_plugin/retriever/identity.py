"""What tells one model from another: a digest of its configuration and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atr_moco_plugin.io.digests import sha256_of


def model_fingerprint(config: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """SHA-256 in hexadecimal of a model: what its embeddings depend on.

    Args:
        config: options that the embeddings depend on.
        files: what :func:`digests` gives for the files that they depend on.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, own in files.items():
        digest.update(f"\n{name} {own}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 in hexadecimal of each file, by its path.

    Args:
        files: name to file; a folder stands for all files in it.
    """
    found = {}
    for name in sorted(files):
        place = files[name]
        # Without what a system leaves in any folder, such as .DS_Store.
        inside = sorted(x for x in place.rglob("*") if x.is_file()) if place.is_dir() else [place]
        for file in inside:
            within = file.relative_to(place)
            if not any(part.startswith(".") for part in within.parts):
                found[f"{name}/{within}" if within.parts else name] = sha256_of(file)
    return found
