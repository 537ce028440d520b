"""Embeddings from files: those that ``embed`` and ``evaluate`` write, and anybody else's."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atr_moco_plugin.analysis.row_names import (
    NAME_TITLES,
    Ids,
    checked_names,
    described,
    ids_in_table,
    names_beside,
    names_in_table,
)
from atr_moco_plugin.errors import InputError, MissingFileError, listed

SEPARATOR = "::"
"""Between a file and the name of the tensor or the column in it."""

Kind = Literal["audio", "text"]
"""The two kinds of rows in files of this package."""


@dataclass(frozen=True)
class GivenRows:
    """A matrix of embeddings and what its rows are of.

    Attributes:
        name: of the tensor or the column; of the file where it has no name.
        rows: ``[N, d]`` as the file has it, or what it has under this name.
        names: N paths, sentences or ids as text, empty for a row without one; None where the file
            does not say.
        partners: ``[N]`` int64, of a file with both kinds: the row of the other side that each row
            belongs to; None where the file does not say.
        ids: of a table, N names of the items that the rows are of by the title of their column.
        column: whether they are a column of a table, one in each of its rows.
    """

    name: str
    rows: Tensor
    names: list[str] | None = None
    partners: Tensor | None = None
    ids: Ids = field(default_factory=dict)
    column: bool = False


def is_embeddings_file(path: str) -> bool:
    """Whether a path, with or without a name behind it, is one of a file that can be read."""
    return Path(path.partition(SEPARATOR)[0]).suffix.lower() in _READERS


def read_embeddings(path: str, kind: Kind | None = None) -> GivenRows:
    """Read one matrix of embeddings.

    Args:
        path: of a ``.npy``, ``.safetensors`` or ``.parquet``; ``FILE::NAME`` says which tensor or
            column. In a file of ``embed`` the name is ``audio`` or ``text``, in every format.
        kind: what is taken of a file that has both ``audio`` and ``text``, where no name is given.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it cannot be read, has nothing of the name, or several that may be meant.
    """
    file, _, name = path.partition(SEPARATOR)
    reader = _READERS.get(Path(file).suffix.lower())
    if reader is None:
        raise InputError(
            f"{file}: embeddings are read from {', '.join(_READERS)}; convert the file, or give "
            "--model to embed sounds and sentences."
        )
    if not Path(file).is_file():
        raise MissingFileError(f"{file}: there is no such file of embeddings.")
    return reader(Path(file), name, kind)


def kinds_in(path: str) -> tuple[Kind, ...]:
    """Which of ``audio`` and ``text`` a file has, both where ``embed`` or ``evaluate`` wrote both.

    Raises:
        MissingFileError, InputError: as :func:`read_embeddings`.
    """
    file, _, name = path.partition(SEPARATOR)
    suffix = Path(file).suffix.lower()
    if name or suffix not in (".safetensors", ".parquet"):
        return ()
    if not Path(file).is_file():
        raise MissingFileError(f"{file}: there is no such file of embeddings.")
    there: Sequence[str]
    if suffix == ".safetensors":
        with _tensors(Path(file)) as tensors:
            there = tensors.keys()
    else:
        table = _table(Path(file), ["kind"])
        there = table["kind"].unique().to_pylist() if "kind" in table.column_names else []
    return tuple(kind for kind in ("audio", "text") if kind in there)


def _choose(path: Path, name: str, there: Sequence[str], kind: str | None, what: str) -> str:
    """The tensor or column that is meant."""
    if not there:
        more = "; each of its cells must be a list of numbers" if what == "column" else ""
        raise InputError(f"{path}: has no {what} of embeddings [rows, numbers]{more}.")
    if name:
        if name not in there:
            raise InputError(
                f"{path}: has no {what} {name!r} of embeddings; it has {_quoted(there)}."
            )
        return name
    if kind is not None and kind in there:
        return kind
    if len(there) > 1:
        raise InputError(
            f"{path}: has several {what}s of embeddings, {_quoted(there)}; say which, as in "
            f"{path.name}{SEPARATOR}{there[0]}."
        )
    return there[0]


def _quoted(names: Sequence[str]) -> str:
    return listed([repr(name) for name in names], 6)


def load_npy(path: Path) -> NDArray[Any]:
    """The array of a ``.npy``. Nothing in it is ever run.

    Raises:
        InputError: if it is none.
    """
    try:
        array = np.load(path, allow_pickle=False)
    # The last two are of a header that lacks a bracket and of a damaged .npz.
    except (ValueError, OSError, EOFError, TokenError, zipfile.BadZipFile) as ex:
        raise InputError(
            f"{path} cannot be read as .npy ({ex}); write an array of numbers with numpy.save."
        ) from ex
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is a .npz with several arrays; save one with numpy.save.")
    return array


def _read_npy(path: Path, name: str, kind: Kind | None) -> GivenRows:
    if name:
        raise InputError(f"{path}: a .npy has one matrix and no name {name!r}; leave it out.")
    rows = _tensor(path, load_npy(path))
    found = names_beside(path, rows)
    return GivenRows(path.stem, rows) if found is None else GivenRows(found[0], rows, found[1])


def _read_safetensors(path: Path, name: str, kind: Kind | None) -> GivenRows:
    with _tensors(path) as file:
        there = [key for key in file.keys() if len(file.get_slice(key).get_shape()) == 2]
        # A table of pairs or of counts is no table of embeddings.
        real = [key for key in there if "F" in file.get_slice(key).get_dtype()]  # F32, BF16
        there = real or there
        chosen = _choose(path, name, there, kind, "tensor")
        rows = file.get_tensor(chosen)
        metadata = file.metadata() or {}
        owner = "caption_to_audio"
        partners = file.get_tensor(owner) if chosen == "text" and owner in file.keys() else None
    for title in NAME_TITLES.get(chosen, ()):
        if title in metadata:
            names = checked_names(path, described(path, metadata[title]), rows)
            return GivenRows(chosen, rows, names, partners)
    return GivenRows(chosen, rows, None, partners)


def _tensors(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as ex:
        raise InputError(f"{path} cannot be read as .safetensors ({ex}); write it again.") from ex


def _read_parquet(path: Path, name: str, kind: Kind | None) -> GivenRows:
    import pyarrow.types

    table = _table(path)
    types = pyarrow.types
    lists = [
        field.name
        for field in table.schema
        if any(
            of(field.type) for of in (types.is_list, types.is_large_list, types.is_fixed_size_list)
        )
        # Lists of captions are no embeddings.
        and (types.is_floating(field.type.value_type) or types.is_integer(field.type.value_type))
    ]
    of_embed = b"about" in (table.schema.metadata or {})
    by_kind = "kind" in table.column_names and "embedding" in lists and name not in lists
    if by_kind:
        kinds = [kind for kind in table["kind"].unique().to_pylist() if kind in NAME_TITLES]
        column, chosen = "embedding", _choose(path, name, kinds, kind, "kind")
        table = table.filter(pyarrow.compute.equal(table["kind"], chosen))
    else:
        column = chosen = _choose(path, name, lists, kind, "column")
    rows = _tensor(path, _matrix(path, column, table[column]))
    table = table.select([title for title in table.column_names if title not in lists])
    ids = ids_in_table(table, sentences=of_embed and chosen == "text")
    return GivenRows(chosen, rows, names_in_table(table, kind), ids=ids, column=not by_kind)


def _table(path: Path, columns: list[str] | None = None) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as ex:
        raise InputError(f"{path} needs pyarrow: pip install 'atr-moco-plugin[parquet]'.") from ex
    try:
        if columns is not None:
            there = pyarrow.parquet.read_schema(path).names
            columns = [name for name in columns if name in there]
        return pyarrow.parquet.read_table(path, columns=columns)
    except (pyarrow.ArrowException, OSError) as ex:
        raise InputError(f"{path} cannot be read as .parquet ({ex}); write it again.") from ex


def _matrix(path: Path, column: str, values: Any) -> NDArray[Any]:
    """A column of lists as a matrix, chunk by chunk, so that no Python list is made."""
    import pyarrow.compute

    if (
        values.null_count
        or pyarrow.compute.any(
            pyarrow.compute.is_null(pyarrow.compute.list_flatten(values))
        ).as_py()
    ):
        raise InputError(f"{path}: column {column!r} has empty cells; embed these rows again.")
    sizes = pyarrow.compute.list_value_length(values).unique().to_pylist()
    if not sizes:
        raise InputError(f"{path}: has no row; write embeddings to it.")
    if len(sizes) != 1:
        raise InputError(
            f"{path}: the embeddings in column {column!r} have {len(sizes)} lengths, such as "
            f"{listed([str(size) for size in sorted(sizes)])}; all must have one."
        )
    flat: NDArray[Any] = pyarrow.compute.list_flatten(values).to_numpy()
    return flat.reshape(len(values), sizes[0])


def _tensor(path: Path, array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: has the type {array.dtype}, expected real numbers; write embeddings as "
            "float32."
        )
    # torch has no floats of 128 bits, and an old one no unsigned integers of more than 8; those of
    # 64 do not fit into signed ones.
    if array.dtype.itemsize > 8 or array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = array.astype(np.float64)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


_READERS: dict[str, Callable[[Path, str, Kind | None], GivenRows]] = {
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
