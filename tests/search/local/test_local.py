"""An index in a folder answers as its contents say, however they came in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import DIM, INFO, QUERIES, answers, embedded, some_bank

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.local import create_local, open_local, writing
from atr_moco_plugin.search.store import Counts, Embedded, Filter, Store, WindowHit

ODD = ["/a b.wav", "/a\nb.wav", "/\N{DOG FACE}.wav", "/a\udcff.wav", "/z/ä.wav", "/%41?#.wav"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with create_local(tmp_path / "index", INFO) as store:
        yield store


def in_order(items: dict[tuple[str, str], Embedded]) -> list[Embedded]:
    return [items[key] for key in sorted(items, key=lambda key: (key[0].encode(), key[1].encode()))]


def plainly(items: list[Embedded], query: np.ndarray, k: int) -> list[tuple[str, float]]:
    rows = [
        (item.recording.path, float(start), row.astype(np.float16).astype(np.float64))
        for item in items
        for (start, _), row in zip(item.spans, item.embeddings, strict=True)
    ]
    scores = [np.float32(row @ query.astype(np.float64)) for *_, row in rows]
    order = sorted(range(len(rows)), key=lambda n: (-scores[n], n))
    return [rows[n][:2] for n in order[:k]]


def test_an_empty_index_has_no_answers(store: Store) -> None:
    assert store.counts() == Counts(0, 0, 0.0, 0)
    assert store.nearest(QUERIES, 5) == [[], [], []]
    assert store.recording_scores(QUERIES).scores.shape == (3, 0)
    assert store.nearest(QUERIES[:0], 5) == []
    assert list(store.recordings()) == []


def test_what_is_put_in_is_found(store: Store) -> None:
    items = [embedded(f"/{n}.wav", n % 4) for n in range(40)]
    store.put(items)
    store.put([])
    assert store.counts() == Counts(30, 60, 10 * (10.0 + 15 + 20), 10)
    for query, hits in zip(QUERIES, store.nearest(QUERIES, 9), strict=True):
        assert [(hit.recording.path, hit.start) for hit in hits] == plainly(items, query, 9)
        assert all(hit.end == hit.start + 10 for hit in hits)
        assert store.windows([hit.window for hit in hits]) == [
            hit._replace(score=0, cosine=0) for hit in hits
        ]
    everything = store.nearest(QUERIES[:1], 100)[0]
    assert len(everything) == 60
    # The best window of each recording, in the order of `recordings`.
    scores, windows, _ = store.recording_scores(QUERIES[:1])
    best: dict[str, WindowHit] = {}
    for hit in everything:
        best.setdefault(hit.recording.path, hit)
    paths = [recording.path for recording in store.recordings() if not recording.problem]
    assert paths == sorted(best)
    assert windows[0].tolist() == [best[path].window for path in paths]
    np.testing.assert_allclose(scores[0], [best[path].score for path in paths], atol=1e-6)


def test_odd_names(store: Store) -> None:
    store.put([embedded(path, 1, member=member) for path in ODD for member in ("", *ODD)])
    found = list(store.recordings())
    keys = [(path, member) for path in ODD for member in ("", *ODD)]
    assert [r.key for r in found] == sorted(
        keys, key=lambda key: tuple(part.encode("utf-8", "surrogateescape") for part in key)
    )
    store.remove(keys[1:])
    assert [recording.key for recording in store.recordings()] == keys[:1]


def test_of_a_recording_twice_in_one_call_the_last_counts(store: Store) -> None:
    store.put([embedded("/a", 3), embedded("/b", 1), embedded("/a", 2, seed=1)])
    assert [recording.size for recording in store.recordings()] == [101, 100]
    assert store.counts().windows == 3


def test_filters(store: Store) -> None:
    store.put([embedded(f"/{name}.wav", n) for n, name in enumerate(["x", "a/b", "a/c", "d[1]"])])
    store.put([embedded("/t.tar", 2, member="in/side.wav")])

    def paths(**only: object) -> set[str]:
        filter_ = Filter(**only)  # type: ignore[arg-type]
        hits = store.nearest(QUERIES[:1], 100, filter_)[0]
        found = {hit.recording.name for hit in hits}
        scores = store.recording_scores(QUERIES, filter_)
        assert scores.scores.shape == scores.windows.shape == (3, len(found))
        taken = sorted((r for r in store.recordings() if r.name in found), key=lambda r: r.path)
        best = store.windows(scores.windows[0].tolist())
        assert [hit.recording for hit in best] == taken
        return found

    assert paths(path="/a/*") == {"/a/b.wav", "/a/c.wav"}
    assert paths(path="*b.wav") == {"/a/b.wav"}
    assert paths(path="b.wav") == set()
    assert paths(path="*.tar/*side*") == {"/t.tar/in/side.wav"}
    assert paths(path="*[[]1].wav") == {"/d[1].wav"}
    assert paths(min_seconds=15.0) == {"/a/c.wav", "/d[1].wav", "/t.tar/in/side.wav"}
    assert paths(max_seconds=15.0, path="/a/*") == {"/a/b.wav", "/a/c.wav"}
    assert len(paths()) == 4
    for wrong in ({"min_seconds": -1.0}, {"min_seconds": 3.0, "max_seconds": 2.0}):
        with pytest.raises(InputError, match="are none: give lengths"):
            Filter(**wrong)


def test_a_newer_time(store: Store) -> None:
    store.put([embedded("/a", 1), embedded("/b", 1)])
    before = answers(store)
    store.touch({("/a", ""): 5, ("/c", ""): 6})
    store.touch({})
    assert [recording.mtime_ns for recording in store.recordings()][0] == 5
    store.touch({("/a", ""): 1_700_000_000_000_000_000})
    assert answers(store) == before


def test_windows_that_are_not_there(store: Store) -> None:
    store.put([embedded("/a", 2), embedded("/broken", 0), embedded("/b", 2)])
    numbers = [hit.window for hit in store.nearest(QUERIES[:1], 9)[0]]
    for number in (-1, max(numbers) + 1, 2**40):
        with pytest.raises(InputError, match=f"no window {number}: it was removed, or never there"):
            store.windows([number])
    store.put([embedded("/b", 2, seed=1)])
    gone = set(numbers) - {hit.window for hit in store.nearest(QUERIES[:1], 9)[0]}
    assert len(gone) == 2  # what a page has shown is never another window
    for number in gone:
        with pytest.raises(InputError, match="no window"):
            store.windows([number])


def test_a_reader_sees_each_change(store: Store, tmp_path: Path) -> None:
    with open_local(tmp_path / "index") as reader:
        assert reader.info == INFO
        for step in range(3):
            store.put([embedded(f"/{step}", 2)])
            assert answers(reader) == answers(store)
        listing = reader.recordings()
        assert next(listing).path == "/0"
        store.remove([("/1", "")])
        assert [recording.path for recording in listing] == ["/1", "/2"]  # as of its beginning
        assert [recording.path for recording in reader.recordings()] == ["/0", "/2"]
        for change in (lambda: reader.put([]), lambda: reader.remove([]), lambda: reader.touch({})):
            with pytest.raises(ValueError, match="opened for reading"):
                change()


def test_readers_while_one_writes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer is of one moment: recordings put in together are all there or none."""
    monkeypatch.setattr(writing, "LEAST_DEAD", 25)
    store.put([embedded(f"/{n}", 2) for n in range(5)])
    failures: list[BaseException] = []
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        try:
            with open_local(tmp_path / "index") as reader:
                while not stop.is_set():
                    hits = reader.nearest(QUERIES[:1], 1000)[0]
                    best = reader.recording_scores(QUERIES[:1])
                    sizes = {hit.recording.size for hit in hits}
                    assert len(sizes) == 1 and len(hits) == 10 and best.scores.shape == (1, 5)
                    seen.update(sizes)
        except BaseException as ex:
            failures.append(ex)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seed in range(1, 60):
        store.put([embedded(f"/{n}", 2, seed) for n in range(5)])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("queries", "k"), [(QUERIES[0], 1), (QUERIES[:, :5], 1), (QUERIES * np.nan, 1), (QUERIES, 0)]
)
def test_a_query_that_cannot_be(store: Store, queries: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError, match="quer|k is 0"):
        store.nearest(queries, k)


def test_what_would_contradict_itself_is_refused(store: Store) -> None:
    good = embedded("/a", 2)
    for bad in (
        good._replace(spans=good.spans[:1]),
        good._replace(embeddings=good.embeddings[:, :5]),
        good._replace(embeddings=good.embeddings * 2),
        good._replace(recording=embedded("/a", 0).recording),
        embedded("/a", 0)._replace(recording=good.recording),
    ):
        with pytest.raises(ValueError):
            store.put([embedded("/b", 1), bad])
    with pytest.raises(InputError, match="embedding of /a is no number: use --dtype float32"):
        store.put([good._replace(embeddings=good.embeddings * np.nan)])
    assert store.counts().recordings == 0


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.lists(
                st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 3)), max_size=4
            ),
        ),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 7), max_size=4)),
        st.tuples(st.just("bank"), st.sampled_from([None, 0, 1])),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=12,
)


@given(steps)
@settings(max_examples=25, deadline=None)
def test_any_order_of_changes_ends_in_the_index_of_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("indexes")
    left: dict[tuple[str, str], Embedded] = {}
    bank = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "LEAST_DEAD", 3)
        changed = create_local(folder / "changed", INFO)
        for what, arguments in steps:
            if what == "put":
                items = [embedded(f"/{name}", count, seed) for name, count, seed in arguments]
                changed.put(items)
                for item in items:
                    left.pop(item.recording.key, None)
                    left[item.recording.key] = item
            elif what == "remove":
                keys = [(f"/{name}", "") for name in arguments]
                changed.remove(keys)
                for key in keys:
                    left.pop(key, None)
            elif what == "bank":
                bank = None if arguments is None else some_bank(arguments)
                changed.set_bank(bank)
            else:
                changed.__exit__(None, None, None)
                changed = create_local(folder / "changed", INFO)
        files = [path.name for path in (folder / "changed").glob("*.f16")]
        assert len(files) <= 1
    with changed, create_local(folder / "fresh", INFO) as fresh:
        fresh.set_bank(bank)
        fresh.put(in_order(left))
        assert answers(changed) == answers(fresh)
        with open_local(folder / "changed") as reader:
            assert answers(reader, Filter(path="/[0-2]")) == answers(fresh, Filter(path="/[0-2]"))


def test_dead_rows_do_not_pile_up(store: Store, tmp_path: Path) -> None:
    for seed in range(8):
        store.put([embedded(f"/{n}", 10, seed) for n in range(100)])
    files = list((tmp_path / "index").glob("*.f16"))
    assert len(files) == 1
    assert files[0].stat().st_size <= 3500 * DIM * 2
    assert store.counts().windows == 1000


def test_ten_thousand_recordings_are_put_and_removed_quickly(store: Store) -> None:
    items = [embedded(f"/{n}", 1) for n in range(10_000)]
    start = perf_counter()
    store.put(items)
    assert len(list(store.recordings())) == 10_000
    store.remove([item.recording.key for item in items])
    assert perf_counter() - start < 5  # 0.5 s here
    assert store.counts().recordings == 0
