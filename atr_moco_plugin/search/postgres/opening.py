"""Open an index in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.checks import refuse_other
from atr_moco_plugin.search.postgres.address import parse_address
from atr_moco_plugin.search.postgres.connection import connect
from atr_moco_plugin.search.postgres.schema import create, move_model, read_info, take_for_writing
from atr_moco_plugin.search.postgres.store import PostgresStore
from atr_moco_plugin.search.store import IndexInfo


def open_postgres(
    address: str, *, write: bool = False, info: IndexInfo | None = None, exact: bool = False
) -> PostgresStore:
    """Open an index in PostgreSQL, and make it where it is missing and may be written.

    Args:
        address: such as ``postgresql://me@server/archive?schema=birds``; without a password libpq
            takes that of ``PGPASSWORD`` or ``~/.pgpass``.
        write: be the one writer; readers need no more than the right to select.
        info: the model and windows that are expected.
        exact: search exactly also where there is an HNSW index.

    Raises:
        InputError: if there is no index, it is of another model, another process writes, or the
            server cannot be used. No message has the password.
    """
    place = parse_address(address)
    connection = connect(place)
    try:
        if write:
            take_for_writing(connection, place)
        there = read_info(connection, place)
        if there is None and write and info is not None:
            create(connection, place, info)
            there = read_info(connection, place)
        if there is None:
            raise InputError(f"{place} holds no index: fill it with `index` first.")
        if info is not None and replace(info, model=there.model) != there:
            refuse_other(place, there, info)
        if write and info is not None and info != there:  # the model has moved
            move_model(connection, place, info)
            there = info
        return PostgresStore(place, connection, there, write=write, exact=exact)
    except BaseException:
        connection.close()
        raise
