"""Where an index in PostgreSQL is: the address of the server, the database and the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from atr_moco_plugin.errors import InputError

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_SCHEMA = "sounds"
FORM = "postgresql://USER@HOST:PORT/DATABASE?schema=NAME"


@dataclass(frozen=True)
class Address:
    """A server, a database, and the schema of one index in it.

    Attributes:
        parameters: of the connection, as libpq names them.
        schema: the schema that holds the index.
    """

    # Not printed: the password is one of them.
    parameters: dict[str, str] = field(repr=False)
    schema: str

    def __str__(self) -> str:
        """The address without its password."""
        get = self.parameters.get
        user = f"{quote(get('user', ''), safe='')}@" if get("user") else ""
        port = f":{get('port')}" if get("port") else ""
        return (
            f"postgresql://{user}{get('host', '')}{port}/{get('dbname', '')}?schema={self.schema}"
        )


def parse_address(text: str) -> Address:
    """Read an address such as ``postgresql://me@server/archive?schema=birds``.

    What libpq takes in an address may be in it, such as ``sslmode=require``; ``schema`` is ours.
    Several indexes in one database have different schemas.

    >>> print(parse_address("postgresql://me:secret@server/archive?schema=birds"))
    postgresql://me@server/archive?schema=birds

    Raises:
        InputError: if it cannot be read. The message has no part of the address, since any of them
            may be a part of a password.
    """
    scheme = next(scheme for scheme in SCHEMES if text.startswith(scheme))
    body, _, query = text.removeprefix(scheme).partition("?")
    # libpq would take the rest of such a password for the host, and print it.
    if text.count("@") > 1 or "@" in body.partition("/")[2] + query:
        raise InputError(
            "An address of PostgreSQL may have one @, before the host: in a password, write @ as "
            "%40, / as %2F, : as %3A, ? as %3F and % as %25, or give it in PGPASSWORD."
        )
    items = parse_qsl(query, keep_blank_values=True)
    schemas = [value for key, value in items if key == "schema"] or [DEFAULT_SCHEMA]
    rest = urlencode([item for item in items if item[0] != "schema"], quote_via=quote)
    if len(schemas) > 1:
        raise InputError(f"An address of PostgreSQL has one schema, not several: {FORM}.")
    try:
        parameters = conninfo_to_dict(scheme + body + (f"?{rest}" if rest else ""))
    except psycopg.ProgrammingError:
        raise InputError(
            f"The address of PostgreSQL cannot be read: expected {FORM}, and after the ? what "
            "PostgreSQL's own clients take, such as sslmode=require."
        ) from None
    schema = schemas[0]
    if not 0 < len(schema.encode()) < 64 or schema.startswith("pg_") or not schema.isprintable():
        raise InputError(
            f"schema={schema!r} of the address is no name for a schema of PostgreSQL: expected 1 "
            "to 63 bytes, not beginning with pg_."
        )
    return Address({key: str(value) for key, value in parameters.items()}, schema)
