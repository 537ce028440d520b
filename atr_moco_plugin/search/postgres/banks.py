"""The bank of an index in PostgreSQL and the offset of each window: two tables beside the others.

A new index has them from the start, an older one gets them with its first bank. Offsets are apart
from the windows, so that another bank neither writes every window anew nor adds it to an HNSW
index again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from tqdm import tqdm

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank, BankInfo, refuse_no_bank
from atr_moco_plugin.search.postgres.address import Address

Cursor = psycopg.Cursor[Any]

TABLES = """
CREATE TABLE bank (sentences int, neighbours int, digest text, embeddings bytea);
CREATE TABLE offsets (
    number bigint PRIMARY KEY REFERENCES windows ON DELETE CASCADE, value float4 NOT NULL
);
"""
_AT_ONCE = 10_000
"""Windows whose vectors are read at once."""


def has_tables(cursor: Cursor, address: Address) -> bool:
    """Whether the index has the tables; an index of an earlier version has not."""
    # By the full name: a table of the same name in the schema of pgvector is another one.
    cursor.execute("SELECT to_regclass(format('%%I.offsets', %s::text))", [address.schema])
    return cursor.fetchone() != (None,)


def make_tables(cursor: Cursor) -> None:
    """Make the tables in an index of an earlier version; who may read windows may read them."""
    cursor.execute(TABLES)
    cursor.execute(
        "SELECT DISTINCT grantee FROM pg_class c, aclexplode(c.relacl) "
        "WHERE c.oid = to_regclass('windows') AND privilege_type = 'SELECT' "
        "AND grantee <> c.relowner"
    )
    for (role,) in cursor.fetchall():
        if role == 0:
            name = sql.SQL("PUBLIC")
        else:
            cursor.execute("SELECT rolname FROM pg_roles WHERE oid = %s", [role])
            name = sql.Identifier(cursor.fetchall()[0][0])  # type: ignore[assignment]
        cursor.execute(sql.SQL("GRANT SELECT ON bank, offsets TO {}").format(name))


def read_info(cursor: Cursor, address: Address) -> BankInfo | None:
    """What the index says of its bank; None where it has none."""
    if not has_tables(cursor, address):
        return None
    row = cursor.execute("SELECT sentences, neighbours, digest FROM bank").fetchone()
    return None if row is None else BankInfo(*row)


def check_bank(cursor: Cursor, address: Address, alpha: float) -> None:
    """Refuse a correction by ``alpha`` where there is no bank."""
    if alpha and read_info(cursor, address) is None:
        refuse_no_bank(address)


def check_scores(scores: Any, address: Address) -> None:
    """Refuse windows without an offset, whose scores are NULL."""
    if np.isnan(np.array(scores, dtype=np.float64)).any():
        raise InputError(
            f"{address} has no correction yet for what an earlier version has put: run `index` "
            "again with this one."
        )


def read_bank(cursor: Cursor, address: Address) -> Bank | None:
    """The bank itself; None where there is none."""
    info = read_info(cursor, address)
    if info is None:
        return None
    (data,) = cursor.execute("SELECT embeddings FROM bank").fetchall()[0]
    embeddings = np.frombuffer(data, "<f4").reshape(info.sentences, -1).astype(np.float32)
    return Bank(info, embeddings)


def write_bank(cursor: Cursor, address: Address, bank: Bank | None) -> None:
    """Set or, with None, remove the bank; there are no offsets then. A part of a transaction."""
    if not has_tables(cursor, address):
        if bank is None:
            return
        make_tables(cursor)
    # Not TRUNCATE, which would have readers wait.
    cursor.execute("DELETE FROM offsets")
    cursor.execute("DELETE FROM bank")
    if bank is not None:
        data = np.ascontiguousarray(bank.embeddings, "<f4").tobytes()
        cursor.execute("INSERT INTO bank VALUES (%s, %s, %s, %s)", [*bank.info, data])


def add_offsets(
    cursor: Cursor, bank: Bank, recordings: list[int] | None = None, *, progress: bool = False
) -> None:
    """Add the offsets of some recordings, or of all that have none; a part of a transaction.

    Args:
        cursor: of the writer.
        bank: of the index.
        recordings: their numbers; None for windows that have no offset.
        progress: show a bar on standard error.
    """
    # As bytes: what a vector is in Python differs among versions of its package.
    query = "SELECT w.number, vector_send(w.embedding::vector) FROM windows w "
    values: list[Any] = []
    if recordings is None:
        cursor.execute("SELECT (SELECT count(*) FROM windows) - (SELECT count(*) FROM offsets)")
        total = cursor.fetchall()[0][0]
        query += "LEFT JOIN offsets o USING (number) WHERE o.number IS NULL"
    else:
        total = 0
        query += "WHERE w.recording = ANY(%s)"
        values = [recordings]
    connection = cursor.connection
    with (
        connection.cursor(name="windows_of_bank", binary=True) as reading,
        tqdm(desc="bank: windows", total=total, disable=not (progress and total)) as bar,
    ):
        reading.execute(query, values)
        while rows := reading.fetchmany(_AT_ONCE):
            offsets = bank.offsets(_vectors([data for _, data in rows]))
            with cursor.copy("COPY offsets FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "float4"])
                for (number, _), offset in zip(rows, offsets.tolist(), strict=True):
                    copy.write_row((number, offset))
            bar.update(len(rows))


def _vectors(sent: list[bytes]) -> NDArray[np.float32]:
    """``[N, d]`` vectors as pgvector sends them: four bytes, and d numbers of four bytes."""
    table = np.frombuffer(b"".join(sent), np.uint8).reshape(len(sent), -1)[:, 4:]
    return np.ascontiguousarray(table).view(">f4").astype(np.float32)
