"""A million windows asked by each engine: what is found beside an exact search, and how fast.

    python -m benchmarks.engines [--windows 1000000] [--dim 256] [--queries 200] [--postgres URL]

The vectors are random and clustered: 2,000 topics, of which the n-th is 1/n as frequent as the
first; recordings of 20 windows around the topics, with a cosine of about 0.7; windows around their
recordings, of about 0.86. Queries lie around topics, of about 0.78, and are of no recording.
Sentences of the bank that corrects are drawn as queries are.
Engines take turns query by query. Threads as ``OMP_NUM_THREADS`` says. With ``--postgres`` the
index is also put into a schema of its own there, asked exactly and by HNSW, and dropped. Needs the
extras.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.search.bank import Bank, make_bank
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.store import (
    Embedded,
    Filter,
    IndexInfo,
    Recording,
    Store,
    WindowHit,
)

TOPICS, A_RECORDING, AT_ONCE, K = 2_000, 20, 500, 10
SCHEMA = "benchmark_engines"
SENTENCES = 1_000

Ask = Callable[[NDArray[np.float32]], list[list[WindowHit]]]


class Sounds:
    """Clustered random vectors, the same for the same seed."""

    def __init__(self, windows: int, dim: int) -> None:
        self._rng = np.random.default_rng(0)
        self._dim = dim
        self.recordings = windows // A_RECORDING
        self._topics = self._unit(TOPICS)
        self._frequency = 1 / np.arange(1, TOPICS + 1)
        self._frequency /= self._frequency.sum()

    def _unit(self, rows: int) -> NDArray[np.float32]:
        return normal(self._rng.standard_normal((rows, self._dim), np.float32))

    def around_topics(self, rows: int, spread: float) -> NDArray[np.float32]:
        """``[rows, d]``, each a topic and ``spread`` times a random direction."""
        chosen = self._topics[self._rng.choice(TOPICS, rows, p=self._frequency)]
        return normal(chosen + spread * self._unit(rows))

    def embedded(self, name: str, recordings: int) -> Iterator[list[Embedded]]:
        """Recordings, some at once."""
        starts = np.arange(A_RECORDING) * 10.0
        spans = np.stack([starts, starts + 10.0], axis=1)
        for first in range(0, recordings, AT_ONCE):
            count = min(AT_ONCE, recordings - first)
            centres = np.repeat(self.around_topics(count, 1.0), A_RECORDING, axis=0)
            vectors = normal(centres + 0.6 * self._unit(len(centres)))
            yield [
                Embedded(
                    Recording(
                        path=f"/{name}/{first + i}",
                        size=1,
                        mtime_ns=1,
                        digest="",
                        seconds=A_RECORDING * 10.0,
                    ),
                    spans,
                    rows,
                )
                for i, rows in enumerate(vectors.reshape(count, A_RECORDING, -1))
            ]


def normal(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(store: Store, sounds: Sounds, name: str, recordings: int) -> float:
    """Seconds that it took to put some recordings."""
    seconds = 0.0
    for some in sounds.embedded(name, recordings):
        begin = time.perf_counter()
        store.put(some)
        seconds += time.perf_counter() - begin
    return seconds


def report(title: str, engines: dict[str, Ask], queries: NDArray[np.float32]) -> None:
    """A line for each engine; the first is the exact one. They take turns, query by query."""
    milliseconds: dict[str, list[float]] = {name: [] for name in engines}
    common = dict.fromkeys(engines, 0)
    for number, query in enumerate([*queries[:3], *queries]):
        exact: set[int] = set()
        for name, ask in engines.items():
            begin = time.perf_counter()
            hits = ask(query[None])[0]
            took = 1000 * (time.perf_counter() - begin)
            if number >= 3:  # the first ones open files
                found = {hit.window for hit in hits}
                exact = exact or found
                milliseconds[name].append(took)
                common[name] += len(found & exact)
    (exact_ms, *_) = milliseconds.values()
    for name, times in milliseconds.items():
        median, last = np.quantile(times, [0.5, 0.99])
        print(
            f"| {title} | {name} | {common[name] / (K * len(queries)):.3f} | {median:.1f} ms | "
            f"{last:.1f} ms | {np.median(exact_ms) / median:.1f} |",
            flush=True,
        )


def nearest(store: Store, only: Filter | None = None, alpha: float = 0.0) -> Ask:
    """How a store is asked."""
    return lambda queries: store.nearest(queries, K, only, alpha)


def bank_of(sounds: Sounds) -> Bank:
    """Sentences of which nobody has an embedding but this benchmark."""
    vectors = sounds.around_topics(SENTENCES, 0.8)
    return make_bank([f"{number:06}" for number in range(SENTENCES)], lambda _: vectors)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--postgres", metavar="ADDRESS")
    options = parser.parse_args(arguments)
    torch.set_num_threads(faiss.omp_get_max_threads())
    info = IndexInfo(
        model="random",
        fingerprint="random",
        embed_dim=options.dim,
        sample_rate=16_000,
        window_seconds=10.0,
        hop_seconds=10.0,
    )
    sounds = Sounds(options.windows, options.dim)
    queries = sounds.around_topics(options.queries, 0.8)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        index = Path(folder) / "index"
        with open_index(index, write=True, info=info, engine="faiss") as store:
            put = fill(store, sounds, "old", sounds.recordings)
            begin = time.perf_counter()
            store.finish()
            made = time.perf_counter() - begin
        sizes = {
            suffix: sum(path.stat().st_size for path in index.glob(f"*{suffix}")) / 1e6
            for suffix in (".f16", ".sqlite", ".faiss")
        }
        print(
            f"{options.windows:,} x {options.dim}, {torch.get_num_threads()} threads: put "
            f"{put:.0f} s, file of FAISS {made:.0f} s; MB: "
            + ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items())
        )
        print("\n| index | engine | recall@10 | median | 99th percentile | times exact |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        engines = {
            "exact": nearest(stack.enter_context(open_index(index, engine="exact"))),
            "faiss": nearest(stack.enter_context(open_index(index))),
        }
        begin = time.perf_counter()
        with open_index(index) as store:
            store.nearest(queries[:1], K)
        opened = time.perf_counter() - begin
        report("as it was built", engines, queries)
        with open_index(index, write=True) as store:
            store.set_bank(bank_of(sounds))
        exact, approximate = (
            stack.enter_context(open_index(index, engine=engine)) for engine in ("exact", None)
        )
        for alpha in (0.5, 0.75):
            engines = {
                "exact": nearest(exact, alpha=alpha),
                "faiss": nearest(approximate, alpha=alpha),
            }
            report(f"corrected, alpha {alpha:g}", engines, queries)
        engines = {"exact": nearest(exact), "faiss": nearest(approximate)}
        with open_index(index, write=True) as store:
            store.remove([(f"/old/{i}", "") for i in range(0, sounds.recordings, 20)])
            fill(store, sounds, "new", sounds.recordings // 25)
            store.finish()
        report("5% removed, 4% new", engines, queries)
        print(f"\nOpen and one query, faiss: {1000 * opened:.0f} ms")
        if options.postgres:
            in_postgres(options.postgres, info, Sounds(options.windows, options.dim), queries)


def in_postgres(
    address: str, info: IndexInfo, sounds: Sounds, queries: NDArray[np.float32]
) -> None:
    """The same windows in a database, without and with an HNSW index."""
    import psycopg

    where = f"{address}{'&' if '?' in address else '?'}schema={SCHEMA}"
    with psycopg.connect(address, autocommit=True) as sql:
        try:
            with open_index(where, write=True, info=info) as store:
                put = fill(store, sounds, "old", sounds.recordings)
                store.finish()
                # A filter that takes everything is exact also beside an HNSW index.
                exact = {"PostgreSQL, exact": nearest(store, Filter(min_seconds=0.0))}
                report("as it was built", exact, queries)
                kind = sql.execute(
                    "SELECT typname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid "
                    f"WHERE attname = 'embedding' AND attrelid = '{SCHEMA}.windows'::regclass"
                ).fetchall()[0][0]
                begin = time.perf_counter()
                sql.execute("SET maintenance_work_mem = '2GB'")
                sql.execute(
                    f"CREATE INDEX ON {SCHEMA}.windows USING hnsw (embedding {kind}_ip_ops)"
                )
                made = time.perf_counter() - begin
                sizes = sql.execute(
                    f"SELECT pg_table_size('{SCHEMA}.windows') / 1000000, "
                    f"pg_indexes_size('{SCHEMA}.windows') / 1000000"
                ).fetchall()[0]
                report("as it was built", exact | {"PostgreSQL, HNSW": nearest(store)}, queries)
                store.set_bank(bank_of(sounds))
                store.finish()
                ways = {
                    "PostgreSQL, exact": nearest(store, Filter(min_seconds=0.0), 0.75),
                    "PostgreSQL, HNSW": nearest(store, alpha=0.75),
                }
                report("corrected, alpha 0.75", ways, queries)
        finally:
            sql.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    print(
        f"\nPostgreSQL, {kind}: put {put:.0f} s, HNSW {made:.0f} s; MB: table {sizes[0]:,}, "
        f"indexes {sizes[1]:,}"
    )


if __name__ == "__main__":
    main()
