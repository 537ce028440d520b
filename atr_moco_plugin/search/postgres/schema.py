"""The tables of an index in PostgreSQL: made, recognised, and taken by one writer."""

from __future__ import annotations

from dataclasses import asdict, fields

import psycopg
from psycopg import sql

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.names import name_from_bytes, name_to_bytes
from atr_moco_plugin.search.postgres import banks
from atr_moco_plugin.search.postgres.address import Address
from atr_moco_plugin.search.postgres.connection import Connection, in_words
from atr_moco_plugin.search.store import IndexInfo

FORMAT = 1
"""Of the tables. Another number is refused."""

PAGE = 7000
"""Bytes of an embedding that surely fit into a page beside the rest of a row."""

TABLES = """
CREATE TABLE info (
    format int, model bytea, fingerprint text, embed_dim int, sample_rate int,
    window_seconds float8, hop_seconds float8
);
CREATE TABLE recordings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    path bytea NOT NULL, member bytea NOT NULL, name text COLLATE "C" NOT NULL,
    size bigint NOT NULL, mtime_ns bigint NOT NULL, digest text NOT NULL,
    seconds float8 NOT NULL, problem bytea NOT NULL
);
CREATE TABLE windows (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recording bigint NOT NULL REFERENCES recordings ON DELETE CASCADE,
    start float8 NOT NULL, stop float8 NOT NULL, embedding {kind}({dim}) NOT NULL
);
CREATE INDEX ON windows (recording);
"""
# `key` is the SHA-256 of path and member, which may be too long for an index of PostgreSQL.


def take_for_writing(connection: Connection, address: Address) -> None:
    """Be the one writer of an index until the connection ends.

    Raises:
        InputError: if another process is.
    """
    with in_words(address):
        key = f"atr_moco_plugin {address.schema}"
        number = connection.execute("SELECT hashtextextended(%s, 0)", [key]).fetchone()[0]  # type: ignore[index]
        if connection.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone() == (True,):
            return
        holder = connection.execute(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND (classid::bigint << 32 | objid::bigint) = %s",
            [number],
        ).fetchone()
    raise InputError(
        f"{address} is in use by {(holder or [None])[0] or 'another process'}: wait for its end, "
        "or give another schema."
    )


def read_info(connection: Connection, address: Address) -> IndexInfo | None:
    """Which model made the index; None where there is no index.

    Raises:
        InputError: if it was made by another version, or may not be read.
    """
    with in_words(address):
        # Asked of the catalogue, which also says so to who may not look into the schema.
        there = connection.execute(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE nspname = %s AND relname = 'info'",
            [address.schema],
        ).fetchone()
        if there is None:
            return None
        names = [field.name for field in fields(IndexInfo)]
        try:
            # By its full name: where the schema may not be used, its tables are not found else.
            query = sql.SQL("SELECT format, {} FROM {}.info").format(
                sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(address.schema)
            )
            row = connection.execute(query).fetchone()
        except psycopg.errors.UndefinedColumn:
            row = None
    if row is None or row[0] != FORMAT:
        raise InputError(
            f"{address} has tables that are no index of format {FORMAT}: give another schema, or "
            "make the index again with this version."
        )
    values = dict(zip(names, row[1:], strict=True))
    return IndexInfo(**values | {"model": name_from_bytes(values["model"])})


def create(connection: Connection, address: Address, info: IndexInfo) -> None:
    """Make the tables, all or none."""
    kind = best_kind(connection)
    size = info.embed_dim * (2 if kind == "halfvec" else 4)
    values = asdict(info) | {"format": FORMAT, "model": name_to_bytes(info.model)}
    with in_words(address), connection.transaction():
        schema = [address.schema]
        if connection.execute("SELECT to_regnamespace(quote_ident(%s))", schema).fetchone() == (
            None,
        ):
            name = sql.Identifier(address.schema)
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        try:
            connection.execute(TABLES.format(kind=kind, dim=info.embed_dim))
            connection.execute(banks.TABLES)
        except psycopg.errors.DuplicateTable as ex:
            raise InputError(
                f"{address} has a table of another program ({ex.diag.message_primary}): give "
                "another schema."
            ) from None
        if size <= PAGE:
            # PostgreSQL would keep longer ones apart from their rows, where a scan is slow.
            connection.execute("ALTER TABLE windows ALTER embedding SET STORAGE PLAIN")
        columns = ", ".join(values)
        places = ", ".join(["%s"] * len(values))
        connection.execute(f"INSERT INTO info ({columns}) VALUES ({places})", list(values.values()))


def best_kind(connection: Connection) -> str:
    """``halfvec``, of half the size, where the server's pgvector has it (0.7 and later)."""
    row = connection.execute("SELECT to_regtype('halfvec') IS NOT NULL").fetchone()
    return "halfvec" if row == (True,) else "vector"


def kind_of(connection: Connection) -> str:
    """The type of the embeddings of an index that is there."""
    row = connection.execute(
        "SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE attrelid = to_regclass('windows') AND attname = 'embedding'"
    ).fetchone()
    return "vector" if row is None else str(row[0])


def move_model(connection: Connection, address: Address, info: IndexInfo) -> None:
    """Write down that the same model is now in another place."""
    with in_words(address):
        connection.execute("UPDATE info SET model = %s", [name_to_bytes(info.model)])
