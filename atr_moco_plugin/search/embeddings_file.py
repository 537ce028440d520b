"""Embeddings of sounds and sentences in one file, with what each row is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import (
    check_output,
    new_file,
    unwritable,
    write_atomically,
)
from atr_moco_plugin.io.digests import sha256_of

MAX_NAMES_BYTES = 90_000_000
"""Of the names in a ``.safetensors``: readers refuse a header of more than 100 MB, and it has more
in it than the names."""


@dataclass(frozen=True)
class Rows:
    """Embeddings of one kind.

    Attributes:
        embeddings: ``[N, d]`` float32, unit-norm.
        names: N paths (with ``/member`` or ``#t=start,end`` where they are parts) or sentences.
        ids: ``[N]`` int64: clip ids (:func:`atr_moco_plugin.ids.clip_id`) or caption ids
            (:func:`atr_moco_plugin.ids.caption_id`).
    """

    embeddings: NDArray[np.float32]
    names: list[str]
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class Embeddings:
    """What a file of embeddings holds.

    Attributes:
        rows: by kind, ``audio`` or ``text``, in the order of the inputs.
        about: what made them: model, fingerprint, window and hop in seconds.
    """

    rows: dict[str, Rows]
    about: dict[str, Any] = field(default_factory=dict)


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write a file; it is there whole or not at all.

    ``.safetensors`` has tensors ``audio``, ``clip_ids``, ``text`` and ``caption_ids``, and in its
    metadata JSON lists ``paths`` and ``sentences``, and ``about``. ``.npy`` has the rows of one
    kind, and the rest is beside it in ``NAME.npy.json``, with the SHA-256 of the ``.npy``.
    ``.parquet`` has a row each with ``kind``, ``name``, ``id`` and ``embedding``, and ``about`` in
    its metadata.

    Raises:
        InputError: for another suffix, two kinds in ``.npy``, more names than a ``.safetensors``
            holds, and a file that cannot be written.
    """
    check_embeddings_output(path, kinds=len(embeddings.rows))
    check_names_fit(path, (name for rows in embeddings.rows.values() for name in rows.names))
    write = writer_of(path)
    try:
        with new_file(path) as temporary:
            write(temporary, embeddings)
            if path.suffix == ".npy":
                about = {**_described(embeddings), "sha256": sha256_of(temporary)}
                text = json.dumps(about, indent=2)
                write_atomically(path.with_name(path.name + ".json"), text)
    except OSError as ex:
        raise InputError(unwritable(path, ex)) from ex


def check_embeddings_output(path: Path, *, kinds: int) -> None:
    """Refuse a file that cannot be written, before there is anything to write; its folder is made.

    Args:
        path: of the file.
        kinds: how many kinds of rows it is to hold.

    Raises:
        InputError: as :func:`write_embeddings`.
    """
    writer_of(path)
    if path.suffix == ".npy" and kinds > 1:
        raise InputError(
            f"{path}: a .npy holds one table, but there are sounds and sentences: give "
            ".safetensors or .parquet."
        )
    check_output(path)


def check_names_fit(path: Path, names: Iterable[str]) -> None:
    """Refuse more names of rows than a file can hold, before there is anything to write.

    Args:
        path: of the file.
        names: paths and sentences.

    Raises:
        InputError: if there are too many for a ``.safetensors``.
    """
    if path.suffix != ".safetensors":
        return
    # Twice, since the header is JSON that holds JSON; its quotes count for the comma.
    size = sum(len(json.dumps(json.dumps(name))) for name in names)
    if size > MAX_NAMES_BYTES:
        raise InputError(
            f"{path}: a .safetensors holds {MAX_NAMES_BYTES / 1e6:,.0f} MB of paths and sentences, "
            f"and here are {size / 1e6:,.0f} MB: give .parquet."
        )


def writer_of(path: Path) -> Callable[[Path, Embeddings], None]:
    """What writes files with the suffix of a path.

    Raises:
        InputError: for another suffix, or without the package that one needs.
    """
    if path.suffix not in _WRITERS:
        raise InputError(f"{path}: the suffix must be one of {', '.join(_WRITERS)}.")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as ex:
            raise InputError(
                f"{path} needs pyarrow: pip install 'atr-moco-plugin[parquet]', or give "
                ".safetensors."
            ) from ex
    return _WRITERS[path.suffix]


_TITLES = {"audio": ("clip_ids", "paths"), "text": ("caption_ids", "sentences")}


def _described(embeddings: Embeddings) -> dict[str, Any]:
    """All but the embeddings."""
    described = dict(embeddings.about)
    for kind, rows in embeddings.rows.items():
        ids, names = _TITLES[kind]
        described |= {names: rows.names, ids: rows.ids.tolist()}
    return described


def _write_safetensors(path: Path, embeddings: Embeddings) -> None:
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {}
    metadata = {"about": json.dumps(embeddings.about)}
    for kind, rows in embeddings.rows.items():
        ids, names = _TITLES[kind]
        tensors |= {kind: np.ascontiguousarray(rows.embeddings), ids: rows.ids}
        metadata[names] = json.dumps(rows.names)
    save_file(tensors, path, metadata)


def _write_npy(path: Path, embeddings: Embeddings) -> None:
    (rows,) = embeddings.rows.values()
    with path.open("wb") as file:  # to a path of another suffix it would write another file
        np.save(file, rows.embeddings, allow_pickle=False)


def _write_parquet(path: Path, embeddings: Embeddings) -> None:
    import pyarrow
    import pyarrow.parquet

    tables = []
    for kind, rows in embeddings.rows.items():
        flat = pyarrow.array(rows.embeddings.reshape(-1))
        columns = {
            "kind": pyarrow.array([kind] * len(rows.names)),
            # Arrow has UTF-8 alone.
            "name": [x.encode("utf-8", "backslashreplace").decode() for x in rows.names],
            "id": rows.ids,
            "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, rows.embeddings.shape[1]),
        }
        tables.append(pyarrow.table(columns))
    table = pyarrow.concat_tables(tables)
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"about": json.dumps(embeddings.about)}), path
    )


_WRITERS: dict[str, Callable[[Path, Embeddings], None]] = {
    ".safetensors": _write_safetensors,
    ".npy": _write_npy,
    ".parquet": _write_parquet,
}
