"""A connection to PostgreSQL, and what can go wrong there in one sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import make_conninfo

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.postgres.address import Address

Connection = psycopg.Connection[Any]

DEFAULTS = {
    "connect_timeout": "10",
    "client_encoding": "UTF8",
    # Shown to whoever finds the index in use.
    "application_name": f"process {os.getpid()} on {socket.gethostname()}"[:63],
}


def connect(address: Address) -> Connection:
    """A connection that finds the tables of an index by their bare names.

    Raises:
        InputError: if the server cannot be reached, refuses, or has no pgvector.
    """
    settings: dict[str, Any] = DEFAULTS | address.parameters
    with in_words(address):
        connection = psycopg.connect(make_conninfo(**settings), autocommit=True)
    try:
        with in_words(address):
            _prepare(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: Connection, address: Address) -> None:
    """Make pgvector's types known, and set where names are looked up."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise InputError(f"{address} is a database in {encoding}: create one in UTF8.")
    place = _extension(connection)
    if place is None:
        _create_extension(connection, address)
        place = _extension(connection)
    connection.execute(
        sql.SQL("SET search_path = {}, {}").format(
            sql.Identifier(address.schema), sql.Identifier(str(place))
        )
    )
    register_vector(connection)


def _extension(connection: Connection) -> str | None:
    """The schema that pgvector was created in; it need not be on the path of this user."""
    row = connection.execute(
        "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
        "WHERE extname = 'vector'"
    ).fetchone()
    return None if row is None else str(row[0])


def _create_extension(connection: Connection, address: Address) -> None:
    there = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
    if there.fetchone() is None:
        raise InputError(
            f"The server of {address} has no pgvector: install it there, or take the image "
            "pgvector/pgvector."
        )
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        raise InputError(
            f"{address} has no pgvector yet, and you may not create it: ask an administrator of "
            "the database to run CREATE EXTENSION vector."
        ) from None
    except psycopg.errors.UniqueViolation:
        pass  # another process created it in the same moment


@contextmanager
def in_words(address: Address) -> Iterator[None]:
    """Raise :class:`InputError` for what the user or the server can mend; the rest are bugs."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as ex:
        raise InputError(
            f"{address}: {_reason(ex, address)}; ask the owner of the index for the right "
            "(docs/engines.md)."
        ) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise InputError(f"The index {address} was removed: make it again.") from None
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as ex:
        raise InputError(
            f"PostgreSQL at {address} does not answer as it should ({_reason(ex, address)}): see "
            "to the server, the address and the password, and start again; what was put is kept."
        ) from None


def _reason(ex: psycopg.Error, address: Address) -> str:
    """What the server said, on one line and without the password."""
    text = " ".join((ex.diag.message_primary or str(ex)).split()).rstrip(".")
    password = address.parameters.get("password")
    return text.replace(password, "***") if password else text
