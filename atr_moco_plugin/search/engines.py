"""An index by its address: a folder, or a database."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.search.checks import refuse_other
from atr_moco_plugin.search.faiss.record import has_record
from atr_moco_plugin.search.local import create_local, open_local
from atr_moco_plugin.search.local.faults import told
from atr_moco_plugin.search.store import IndexInfo, Store

SCHEMES = ("postgresql://", "postgres://")
ENGINES = ("exact", "faiss")
"""What searches an index in a folder."""


def open_index(
    address: str | os.PathLike[str],
    *,
    write: bool = False,
    info: IndexInfo | None = None,
    engine: str | None = None,
) -> Store:
    """Open an index, and make it where it is missing.

    ``open_index("birds.index")`` is in a folder, and
    ``open_index("postgresql://me@server/archive?schema=birds")`` in a database.

    Args:
        address: of the index.
        write: be the one writer.
        info: the model and windows that are expected. A writer makes an index that is missing.
        engine: one of :data:`ENGINES`; None is the one that the index has, exact for a new one. A
            writer gives an index in a folder this engine; a reader may ask any index exactly.

    Raises:
        InputError: if there is no index, it is damaged or of another model, another process writes,
            or a package is missing.
    """
    if engine is not None and engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}: give one of {', '.join(ENGINES)}.")
    text = os.fspath(address)
    if text.startswith(SCHEMES):
        if engine == "faiss":
            raise InputError(
                "The engine faiss is for an index in a folder: PostgreSQL has its own (HNSW, see "
                "docs/engines.md)."
            )
        _need("psycopg", "postgres", "An index in PostgreSQL")
        _need("pgvector", "postgres", "An index in PostgreSQL")
        from atr_moco_plugin.search.postgres.opening import open_postgres

        return open_postgres(text, write=write, info=info, exact=engine == "exact")
    if "://" in text:
        raise InputError(
            f"{text.partition('://')[0]}:// is no address of an index: expected a folder or "
            "postgresql://..."
        )
    store = _open_folder(expanded(text, "index"), write, info, engine)
    if info is not None and replace(info, model=store.info.model) != store.info:
        with store:
            refuse_other(text, store.info, info)
    return store


def shown_address(address: str | os.PathLike[str]) -> str:
    """The address of an index as it may be printed: without a password."""
    text = os.fspath(address)
    if not text.startswith(SCHEMES):
        return text
    _need("psycopg", "postgres", "An index in PostgreSQL")
    from atr_moco_plugin.search.postgres.address import parse_address

    return str(parse_address(text))


def _open_folder(folder: Path, write: bool, info: IndexInfo | None, engine: str | None) -> Store:
    """Open an index in a folder with an engine."""
    with told(folder):
        has_faiss = has_record(folder)
    if engine == "faiss" and not (has_faiss or write):
        with open_local(folder):  # refuses where there is none
            raise InputError(
                f"{folder} is searched exactly: run `index --engine faiss` for an index of FAISS."
            )
    if not (engine == "faiss" or has_faiss):
        return create_local(folder, info) if write and info else open_local(folder, write=write)
    if engine == "exact" and not write:
        return open_local(folder)
    _need("faiss", "faiss", f"The engine faiss of {folder}")
    from atr_moco_plugin.search.faiss.store import FaissReader, FaissWriter

    if not write:
        return FaissReader(folder)
    writer = FaissWriter(folder, info)
    if engine == "exact":
        with writer:
            writer.leave()
        return open_local(folder, write=True)
    return writer


def _need(package: str, extra: str, what: str) -> None:
    """Refuse where a package of an extra is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{what} needs the package {package}: pip install 'atr-moco-plugin[{extra}]'"
        )
