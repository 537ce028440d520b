"""Addresses of PostgreSQL: what is read, and that a password is never shown."""

from __future__ import annotations

import pytest

from atr_moco_plugin.errors import InputError

pytest.importorskip("psycopg")
from atr_moco_plugin.search.postgres.address import parse_address  # noqa: E402


def test_what_an_address_says() -> None:
    address = parse_address(
        "postgresql://me:s%40cret@server:5433/archive?sslmode=require&schema=owl"
    )
    assert address.schema == "owl"
    assert address.parameters == {
        "user": "me",
        "password": "s@cret",
        "host": "server",
        "port": "5433",
        "dbname": "archive",
        "sslmode": "require",
    }
    assert str(address) == "postgresql://me@server:5433/archive?schema=owl"
    assert "cret" not in repr(address)


def test_what_an_address_may_leave_out() -> None:
    address = parse_address("postgres:///archive?host=/run/postgresql")
    assert (address.schema, address.parameters["host"]) == ("sounds", "/run/postgresql")
    assert parse_address("postgresql://server").parameters == {"host": "server"}


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3cr@t@server/archive",
        "postgresql://me:s3cr/t@server/archive",
        "postgresql://me:s3cr?t@server/archive",
        "postgresql://me:s3crt@server/archive?nothing=1",
        "postgresql://me:s3cr%zt@server/archive",
        "postgresql://me:s3crt@server/archive?schema=a&schema=b",
        "postgresql://me:s3crt@server/archive?schema=",
        "postgresql://me:s3crt@server/archive?schema=pg_catalog",
        "postgresql://me:s3crt@server/archive?schema=" + "x" * 64,
        "postgresql://me:s3crt@server/archive?schema=a%00b",
        "postgresql://[::1/archive?password=s3crt",
    ],
)
def test_what_cannot_be_read_is_refused_without_the_password(address: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_address(address)
    assert "s3cr" not in str(caught.value)
