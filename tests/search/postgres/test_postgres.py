"""What an index in PostgreSQL does beside the contract of all engines, on a server that runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import make_up_bank
from numpy.typing import NDArray
from postgres_server import DEBIAN, WHEELS, postgres_server

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.store import Embedded, Filter, IndexInfo, Recording

psycopg = pytest.importorskip("psycopg")
from atr_moco_plugin.search.postgres.patterns import regular_expression, searchable  # noqa: E402

INFO = IndexInfo(
    model="m",
    fingerprint="f",
    embed_dim=16,
    sample_rate=16_000,
    window_seconds=10.0,
    hop_seconds=10.0,
)


@pytest.fixture(params=WHEELS)
def server(request: pytest.FixtureRequest, postgres: Callable[[str], str]) -> str:
    return postgres(request.param)


@pytest.fixture
def sql(server: str) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Runs a statement as the owner of everything, outside of the store."""
    with psycopg.connect(server, autocommit=True) as connection:

        def run(statement: str) -> list[tuple[object, ...]]:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield run


def things(count: int, seed: int = 0) -> list[Embedded]:
    rng = np.random.default_rng(seed)
    vectors: NDArray[np.float32] = rng.standard_normal((count, 1, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    spans = np.array([[0.0, 10.0]])
    recordings = [
        Recording(path=f"/{i}", size=1, mtime_ns=2, digest="d", seconds=float(i))
        for i in range(count)
    ]
    return [Embedded(one, spans, row) for one, row in zip(recordings, vectors, strict=True)]


def test_two_indexes_in_one_database(server: str, tmp_path: Path) -> None:
    one, two = (f"{server}?schema={tmp_path.name}{name}" for name in ("one", '"; drop -- 🐕'))
    with open_index(one, write=True, info=INFO) as a, open_index(two, write=True, info=INFO) as b:
        a.put(things(3))
        b.put(things(5, seed=1))
        assert (a.counts().recordings, b.counts().recordings) == (3, 5)


def test_tables_of_another_program_are_left_alone(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    schema = tmp_path.name
    sql(f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}".recordings (mine int)')
    with pytest.raises(InputError, match="another program.*recordings"):
        open_index(f"{server}?schema={schema}", write=True, info=INFO)
    sql(f'CREATE TABLE "{schema}".info (mine int)')
    for write in (True, False):
        with pytest.raises(InputError, match="no index of format 1"):
            open_index(f"{server}?schema={schema}", write=write, info=INFO)
    assert sql(f'SELECT count(*) FROM "{schema}".recordings') == [(0,)]


def test_a_reader_needs_the_right_to_select_alone(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    schema, user = tmp_path.name, tmp_path.name[-40:]
    with open_index(f"{server}?schema={schema}", write=True, info=INFO) as store:
        store.put(things(4))
    sql(f"CREATE ROLE \"{user}\" LOGIN PASSWORD 'other'")
    address = f"postgresql://{user}:other@{server.partition('@')[2]}?schema={schema}"
    with pytest.raises(InputError, match="permission denied.*ask the owner"):
        open_index(address)
    with pytest.raises(InputError, match="permission denied.*ask the owner"):
        open_index(f"{address}_new", write=True, info=INFO)
    sql(f'GRANT USAGE ON SCHEMA "{schema}" TO "{user}"')
    sql(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{user}"')
    with open_index(address) as store:
        assert len(store.nearest(things(1)[0].embeddings, 9)[0]) == 4
        assert len(list(store.recordings())) == 4
    with open_index(address, write=True) as store:
        with pytest.raises(InputError, match="permission denied"):
            store.put(things(5))


def test_a_wrong_password_and_servers_that_are_not_there(server: str) -> None:
    wrong = server.replace("owner:", "owner:s3cret-and-wrong")
    port = server.rpartition(":")[2].partition("/")[0]
    for address, reason in [
        (wrong, "password authentication failed"),
        (server.replace(f":{port}/", ":1/"), "refused"),
        (server.replace("/postgres", "/s3cretbase"), "does not exist"),
        ("postgresql://me:s3cret@nowhere.invalid/x?connect_timeout=2", "nowhere.invalid"),
        ("postgresql:///x?host=/nowhere", "No such file"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            open_index(address)
        text = str(caught.value).replace("s3cretbase", "")
        assert "s3cret" not in text and "\n" not in text


def test_pgvector_that_may_not_be_created(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    name = tmp_path.name[-40:]
    sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'other'")
    sql(f'CREATE DATABASE "{name}" OWNER "{name}"')
    address = (
        f"postgresql://{name}:other@{server.partition('@')[2].replace('/postgres', '/' + name)}"
    )
    with pytest.raises(InputError, match="CREATE EXTENSION vector"):
        open_index(address, write=True, info=INFO)
    # The owner puts it where this user's path does not lead.
    owner = server.replace("/postgres", f"/{name}")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere; CREATE EXTENSION vector SCHEMA elsewhere")
        connection.execute(f'GRANT USAGE ON SCHEMA elsewhere TO "{name}"')
    with open_index(address, write=True, info=INFO) as store:
        store.put(things(3))
        assert store.nearest(things(3)[2].embeddings, 1)[0][0].recording.path == "/2"


def test_a_database_that_is_not_in_utf8(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    name = tmp_path.name[-40:]
    sql(f'CREATE DATABASE "{name}" ENCODING LATIN1 TEMPLATE template0')
    with pytest.raises(InputError, match="LATIN1.*UTF8"):
        open_index(server.replace("/postgres", f"/{name}"))


def test_a_server_without_pgvector() -> None:
    folders = [folder for folder in sorted(DEBIAN.glob("*/bin")) if (folder / "initdb").is_file()]
    share = Path("/usr/share/postgresql")
    if not folders or any(share.glob("*/extension/vector.control")):
        pytest.skip("Debian's PostgreSQL without pgvector is not installed")
    with postgres_server(folders[-1]) as address:
        with pytest.raises(InputError, match="has no pgvector: install it there"):
            open_index(address, write=True, info=INFO)


def test_connections_that_are_lost(
    server: str, sql: Callable[[str], list[tuple[object, ...]]], tmp_path: Path
) -> None:
    address = f"{server}?schema={tmp_path.name}"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    end += " AND backend_type = 'client backend'"
    with open_index(address, write=True, info=INFO) as writer, open_index(address) as reader:
        writer.put(things(3))
        assert reader.counts().recordings == 3
        sql(end)
        # A reader goes on; a writer has lost its place, and another may have begun to write.
        assert reader.counts().recordings == 3
        with pytest.raises(InputError, match="start again; what was put is kept"):
            writer.put(things(5))
        with pytest.raises(InputError, match="start again"):
            writer.counts()
        with open_index(address, write=True) as next_one:
            next_one.put(things(4))
        assert reader.counts().recordings == 4


def test_an_index_that_is_dropped_while_it_is_read(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    with open_index(f"{server}?schema={tmp_path.name}", write=True, info=INFO) as store:
        sql(f'DROP SCHEMA "{tmp_path.name}" CASCADE')
        with pytest.raises(InputError, match="was removed: make it again"):
            store.counts()


def test_an_index_made_anew_while_it_is_read(
    server: str, sql: Callable[[str], object], tmp_path: Path
) -> None:
    address = f"{server}?schema={tmp_path.name}"
    with open_index(address, write=True, info=INFO) as writer:
        writer.put(things(3))
    with open_index(address) as reader:
        sql(f'DROP SCHEMA "{tmp_path.name}" CASCADE')
        with open_index(address, write=True, info=INFO) as writer:
            writer.put(things(2))
        assert reader.counts().recordings == 2
        sql(f'DROP SCHEMA "{tmp_path.name}" CASCADE')
        with open_index(address, write=True, info=replace(INFO, fingerprint="g")) as writer:
            writer.put(things(3))
        for _ in range(2):
            with pytest.raises(InputError, match="was made anew with another model"):
                reader.nearest(things(3)[2].embeddings, 1)


def test_an_hnsw_index_of_the_documentation(
    server: str, sql: Callable[[str], list[tuple[object, ...]]], tmp_path: Path
) -> None:
    schema = tmp_path.name
    every = things(3000)
    queries = np.concatenate([one.embeddings for one in things(20, seed=1)])
    # Few windows are quicker to scan than an index of them.
    address = f"{server}?schema={schema}&options=-c%20enable_seqscan%3Doff"
    with open_index(address, write=True, info=INFO) as store:
        store.put(every)
        exact = store.nearest(queries, 10)
        (kind,) = sql(
            "SELECT typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
            f"WHERE attrelid = '\"{schema}\".windows'::regclass AND attname = 'embedding'"
        )[0]
        sql(f'CREATE INDEX ON "{schema}".windows USING hnsw (embedding {kind}_ip_ops)')
        sql(f'ANALYZE "{schema}".windows')
        found = store.nearest(queries, 10)
        uses = f"SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = '{schema}' "
        uses += "AND indexrelname LIKE '%embedding%'"
        hits = [
            len({hit.window for hit in one} & {hit.window for hit in other})
            for one, other in zip(exact, found, strict=True)
        ]
        assert sum(hits) >= 0.95 * 10 * len(queries)
        for one, other in zip(exact, found, strict=True):
            scores = {hit.window: hit.score for hit in one}
            assert [hit.score for hit in other] == sorted(
                (hit.score for hit in other), reverse=True
            )
            assert all(hit.score == scores.get(hit.window, hit.score) for hit in other)
        # With a filter, and for more hits than it gives, the search is exact.
        only = Filter(max_seconds=30.0)
        chosen = store.nearest(queries[:1], 100, only)[0]
        assert len(chosen) == 31
        assert len(store.nearest(queries[:1], 2000)[0]) == 2000
    with open_index(address) as store:
        assert store.nearest(queries, 10) == found
    with open_index(address, engine="exact") as store:
        assert store.nearest(queries, 10) == exact
    until = time.monotonic() + 20
    while sql(uses) == [(0,)] and time.monotonic() < until:
        time.sleep(0.1)  # a process of the server counts when it ends
    assert sql(uses) == [(40,)]


def test_corrected_by_an_hnsw_index(
    server: str, sql: Callable[[str], list[tuple[object, ...]]], tmp_path: Path
) -> None:
    """It finds by cosine: many more are scored, and too much of a correction is exact."""
    schema = tmp_path.name
    queries = np.concatenate([one.embeddings for one in things(20, seed=1)])
    address = f"{server}?schema={schema}&options=-c%20enable_seqscan%3Doff"
    rows = np.concatenate([one.embeddings for one in things(300, seed=2)])
    with open_index(address, write=True, info=INFO) as store:
        store.put(things(3000))
        store.set_bank(make_up_bank(rows))
        exact = {alpha: store.nearest(queries, 10, alpha=alpha) for alpha in (0.75, 1.5)}
        many = store.nearest(queries[:2], 126, alpha=0.75)
        (kind,) = sql(
            "SELECT typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
            f"WHERE attrelid = '\"{schema}\".windows'::regclass AND attname = 'embedding'"
        )[0]
        sql(f'CREATE INDEX ON "{schema}".windows USING hnsw (embedding {kind}_ip_ops)')
        found = store.nearest(queries, 10, alpha=0.75)
        common = 0
        for one, other in zip(found, exact[0.75], strict=True):
            scores = {hit.window: hit for hit in other}
            assert all(scores.get(hit.window, hit) == hit for hit in one)
            common += len(scores.keys() & {hit.window for hit in one})
        assert common >= 0.95 * 10 * len(queries)
        assert store.nearest(queries, 10, alpha=1.5) == exact[1.5]
        assert store.nearest(queries[:2], 126, alpha=0.75) == many


def test_an_index_of_an_earlier_version_gets_a_bank(
    server: str, sql: Callable[[str], list[tuple[object, ...]]], tmp_path: Path
) -> None:
    """It has no tables for one; who may read it may read those too."""
    schema, user = tmp_path.name, tmp_path.name[-40:]
    address = f"{server}?schema={schema}"
    queries = np.concatenate([one.embeddings for one in things(3, seed=1)])
    with open_index(address, write=True, info=INFO) as store:
        store.put(things(50))
    sql(f'DROP TABLE "{schema}".bank, "{schema}".offsets')
    sql(f"CREATE ROLE \"{user}\" LOGIN PASSWORD 'pw'")
    sql(f'GRANT USAGE ON SCHEMA "{schema}" TO "{user}"')
    sql(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{user}"')
    with open_index(address) as store:
        assert store.bank() is None
        plain = store.nearest(queries, 5)
        with pytest.raises(InputError, match="has no bank to correct with"):
            store.nearest(queries, 5, alpha=0.5)
    with open_index(address, write=True, info=INFO) as store:
        store.set_bank(None)
        store.put(things(60)[50:])
        store.remove([one.recording.key for one in things(60)[50:]])
        bank = make_up_bank(np.concatenate([one.embeddings for one in things(40, seed=2)]))
        store.set_bank(bank)
        corrected = store.nearest(queries, 5, alpha=0.5)
        assert store.nearest(queries, 5) == plain != corrected
    reader = f"postgresql://{user}:pw@{server.partition('@')[2]}?schema={schema}"
    with open_index(reader) as store:
        assert store.bank() == bank.info
        assert store.nearest(queries, 5, alpha=0.5) == corrected


@pytest.mark.parametrize("part", ["psycopg", "pgvector"])
def test_a_missing_package_is_named(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(InputError, match=r"pip install 'atr-moco-plugin\[postgres\]'"):
        open_index("postgresql://server/x")


LETTERS = "ab[]!-^*?\\.$(){}|+/\né\udce9🐕:=#"


@settings(max_examples=300, deadline=None)
@given(pattern=st.text(LETTERS, max_size=8), names=st.lists(st.text(LETTERS), max_size=20))
def test_patterns_are_those_of_a_shell(
    postgres_connection: psycopg.Connection[tuple[bool]], pattern: str, names: list[str]
) -> None:
    from fnmatch import fnmatchcase

    regex = regular_expression(searchable(pattern))
    for name in names:
        row = postgres_connection.execute(
            'SELECT %s COLLATE "C" ~ %s', [searchable(name), regex]
        ).fetchone()
        assert row == (fnmatchcase(name, pattern),), (name, regex)


@pytest.fixture(scope="module")
def postgres_connection(
    postgres: Callable[[str], str],
) -> Iterator[psycopg.Connection[tuple[bool]]]:
    with psycopg.connect(postgres("pgserver"), autocommit=True) as connection:
        yield connection
