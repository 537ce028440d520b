"""Corrected searches are those of a slow way over every window, in each engine."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from indexes import INFO, QUERIES, answers, embedded, some_bank
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank
from atr_moco_plugin.search.query import find
from atr_moco_plugin.search.store import Embedded, Filter, Store

Open = Callable[..., Store]
ALPHA = 0.75
HALF = 2e-3
"""What float16 loses of a cosine, at most."""


def some(count: int, seed: int = 0) -> list[Embedded]:
    return [embedded(f"/a/{n:02}", n % 4, seed) for n in range(count)]


def offsets(one: Embedded, bank: Bank) -> NDArray[np.float64]:
    """The mean of the highest tenth of the cosines with the bank, as the formula says."""
    cosines = one.embeddings.astype(np.float64) @ bank.embeddings.T.astype(np.float64)
    return np.sort(cosines, axis=1)[:, -len(bank.embeddings) // 10 :].mean(axis=1)


def check(store: Store, expected: list[Embedded], bank: Bank, only: Filter | None = None) -> None:
    """Corrected, the store answers as the slow way over what was put does."""
    chosen = sorted((x for x in expected if len(x.spans)), key=lambda x: x.recording.key)
    chosen = [x for x in chosen if only is None or only.takes(x.recording)]
    every = sum(len(x.spans) for x in chosen)
    best = store.recording_scores(QUERIES, only, ALPHA)
    assert best.scores.shape == best.windows.shape == best.cosines.shape == (3, len(chosen))
    for q, (query, hits) in enumerate(
        zip(QUERIES, store.nearest(QUERIES, every + 3, only, ALPHA), strict=True)
    ):
        cosines = {
            (x.recording.path, float(start)): (float(row @ query), float(offset))
            for x in chosen
            for (start, _), row, offset in zip(x.spans, x.embeddings, offsets(x, bank), strict=True)
        }
        assert {(hit.recording.path, hit.start) for hit in hits} == set(cosines)
        assert [(-x.score, x.window) for x in hits] == sorted((-x.score, x.window) for x in hits)
        by_path: dict[str, list[float]] = {}
        for hit in hits:
            cosine, offset = cosines[hit.recording.path, hit.start]
            assert hit.cosine == pytest.approx(cosine, abs=HALF)
            assert hit.score == pytest.approx(cosine - ALPHA * offset, abs=HALF)
            by_path.setdefault(hit.recording.path, []).append(hit.score)
        # Few hits are the first of many, and cosines are those of a plain search.
        assert store.nearest(query[None], 4, only, ALPHA)[0] == hits[:4]
        plain = {x.window: x.score for x in store.nearest(query[None], every + 3, only)[0]}
        assert plain == {hit.window: hit.cosine for hit in hits}
        np.testing.assert_allclose(
            best.scores[q], [by_path[x.recording.path][0] for x in chosen], atol=1e-6
        )
        for window, cosine, hit in zip(
            best.windows[q], best.cosines[q], store.windows(best.windows[q].tolist()), strict=True
        ):
            assert plain[int(window)] == pytest.approx(cosine, abs=1e-6)
            assert by_path[hit.recording.path][0] == pytest.approx(
                next(x.score for x in hits if x.window == window), abs=1e-6
            )


def test_scores_are_less_what_the_formula_says(opened: Open) -> None:
    things, bank = some(30), some_bank(0)
    with opened(write=True, info=INFO) as store:
        assert store.bank() is None
        store.set_bank(bank)
        assert store.bank() == bank.info and bank.info.neighbours == 4
        check(store, [], bank)
        store.put(things)
        check(store, things, bank)
        store.finish()
        check(store, things, bank)
        check(store, things, bank, Filter(path="/a/1*", min_seconds=15.0))
        assert answers(store, None)[:2] == answers(store, Filter())[:2]
    with opened() as store:
        assert store.bank() == bank.info
        check(store, things, bank)


def test_a_correction_changes_what_is_found(opened: Open) -> None:
    """A window that is near to every sentence is not the first for one any more."""
    x, y, *_ = np.eye(16, dtype=np.float32)
    hub, own = (x + 0.9 * y) / np.linalg.norm(x + 0.9 * y), np.float32(0.7) * x
    own[2] = np.sqrt(1 - 0.49)
    things = [embedded("/hub", 1)._replace(embeddings=hub[None])]
    things += [embedded("/own", 1)._replace(embeddings=own[None])]
    bank = some_bank(0)
    bank = Bank(bank.info, np.repeat(y[None], len(bank.embeddings), axis=0))
    with opened(write=True, info=INFO) as store:
        store.put(things)
        store.set_bank(bank)
        for alpha, first in ((0.0, "/hub"), (0.01, "/hub"), (0.75, "/own")):
            assert store.nearest(x[None], 1, alpha=alpha)[0][0].recording.path == first
            scores = store.recording_scores(x[None], alpha=alpha).scores[0]
            assert ["/hub", "/own"][scores.argmax()] == first


def test_what_is_put_removed_or_replaced_later_is_corrected_too(opened: Open) -> None:
    bank = some_bank(0)
    with opened(write=True, info=INFO) as store:
        store.put(some(20))
        store.finish()
        store.set_bank(bank)
        check(store, some(20), bank)
        store.put(some(28, seed=1)[16:])
        now = some(20)[:16] + some(28, seed=1)[16:]
        check(store, now, bank)
    with opened(write=True, info=INFO) as store:
        store.remove([now[3].recording.key])
        store.put(some(30)[28:])
        store.touch({now[5].recording.key: 7})
        now = now[:3] + now[4:] + some(30)[28:]
        assert [x.mtime_ns for x in store.recordings() if x.path == "/a/05"] == [7]
        store.touch({now[4].recording.key: now[4].recording.mtime_ns})
        check(store, now, bank)
        store.finish()
        check(store, now, bank)


def test_another_bank_is_as_if_the_index_was_filled_with_it(
    opened: Open, tmp_path: Path, index: tuple[str, str | None]
) -> None:
    from atr_moco_plugin.search.engines import open_index

    address, engine = index
    other = f"{address}-fresh"
    with (
        opened(write=True, info=INFO) as store,
        open_index(other, write=True, info=INFO, engine=engine) as fresh,
    ):
        store.put(some(12))
        store.set_bank(some_bank(0))
        store.put(some(25)[12:])
        store.set_bank(some_bank(1, sentences=300))
        fresh.set_bank(some_bank(1, sentences=300))
        for one in some(25):  # offsets are computed one by one, and are the same to the last bit
            fresh.put([one])
        assert answers(store) == answers(fresh)
        check(store, some(25), some_bank(1, sentences=300))
        store.set_bank(None)
        assert store.bank() is None
        with pytest.raises(InputError, match="has no bank to correct with"):
            store.nearest(QUERIES, 3, alpha=0.5)
        store.set_bank(None)
        store.put(some(3, seed=4))
        assert len(store.nearest(QUERIES, 3)[0]) == 3


def test_a_reader_sees_the_bank_of_the_moment(opened: Open) -> None:
    with opened(write=True, info=INFO) as writer:
        writer.put(some(9))
        with opened() as reader:
            for asked in (reader.nearest, lambda *x: reader.recording_scores(x[0], None, x[3])):
                with pytest.raises(InputError, match=r"has no bank .* run `index` again with --ba"):
                    asked(QUERIES, 3, None, 0.5)
            for bank in (some_bank(0), some_bank(1)):
                writer.set_bank(bank)
                check(reader, some(9), bank)
            writer.put(some(14)[9:])
            check(reader, some(14), some_bank(1))
            with pytest.raises(ValueError, match="read"):
                reader.set_bank(None)
            assert reader.bank() == some_bank(1).info


def test_a_bank_that_does_not_fit_is_refused_whole(opened: Open) -> None:
    bank = some_bank(0)
    nothing, short = bank.embeddings.copy(), bank.embeddings * np.float32(0.5)
    nothing[3, 2] = np.nan
    with opened(write=True, info=INFO) as store:
        store.put(some(6))
        store.set_bank(bank)
        before = answers(store)
        for wrong in (nothing, short):
            with pytest.raises(InputError, match="of the bank is no number or not of length 1"):
                store.set_bank(Bank(some_bank(1).info, wrong))
        for wrong in (bank.embeddings[:, :8], bank.embeddings[1:]):
            with pytest.raises(ValueError, match="embeddings are"):
                store.set_bank(Bank(some_bank(1).info, wrong))
        assert answers(store) == before


@pytest.mark.parametrize("alpha", [-0.1, 4.1, float("nan"), float("inf")])
def test_what_cannot_be_taken_off(opened: Open, alpha: float) -> None:
    with opened(write=True, info=INFO) as store:
        store.put(some(3))
        store.set_bank(some_bank(0))
        for ask in (store.nearest, lambda *x: store.recording_scores(x[0], None, x[3])):
            with pytest.raises(InputError, match=r"is none: give a number from 0 to 4, such as 0"):
                ask(QUERIES, 2, None, alpha)


def test_equal_windows_have_equal_scores(opened: Open) -> None:
    vectors = np.repeat(embedded("/", 1).embeddings, 3, axis=0)
    things = [embedded(f"/{n}", 3)._replace(embeddings=vectors) for n in range(5)]
    with opened(write=True, info=INFO) as store:
        store.put(things[:2])
        store.set_bank(some_bank(0, sentences=1000))
        for one in things[2:]:
            store.put([one])
        hits = store.nearest(QUERIES[:1], 15, alpha=ALPHA)[0]
        assert len({hit.score for hit in hits}) == 1
        assert [hit.window for hit in hits] == sorted(hit.window for hit in hits)


def test_windows_that_an_earlier_version_has_put(
    opened: Open, index: tuple[str, str | None], tmp_path: Path
) -> None:
    """It writes no offsets: nothing is corrected by half, and the next `index` makes up for it."""
    with opened(write=True, info=INFO) as store:
        store.set_bank(some_bank(0))
        store.put(some(12))
    forget = "DELETE FROM offsets WHERE {} IN (SELECT {} FROM offsets LIMIT 2)"
    if urlsplit(index[0]).scheme:
        import psycopg

        with psycopg.connect(index[0].partition("?")[0], autocommit=True) as other:
            other.execute(f'SET search_path = "{tmp_path.name}"')
            other.execute(forget.format("number", "number"))
    else:
        with sqlite3.connect(Path(index[0]) / "index.sqlite") as connection:
            connection.execute(forget.format("id", "id"))
            connection.execute("UPDATE state SET version = version + 1")
        connection.close()
    with opened() as store:
        assert len(store.nearest(QUERIES, 5)[0]) == 5
        for ask in (store.nearest, lambda *x: store.recording_scores(x[0], None, x[3])):
            with pytest.raises(InputError, match=r"no correction yet for .* run `index` again"):
                ask(QUERIES, 2, None, 0.5)
    with opened(write=True, info=INFO) as store:
        store.finish()
        check(store, some(12), some_bank(0))


def test_a_bank_that_changes_during_a_search(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of a hit and what they are compared with are by the same bank."""
    things, only = some(20), Filter(path="/a/0*")
    with opened(write=True, info=INFO) as writer, opened() as reader:
        writer.put(things)
        writer.set_bank(some_bank(0))
        wanted = find(reader, QUERIES[:2], k=4, only=only, alpha=ALPHA)
        writer.set_bank(some_bank(1))
        ask, asked = reader.recording_scores, []

        def and_change(*arguments: Any, **more: Any) -> Any:
            scores = ask(*arguments, **more)
            asked.append(arguments)
            if len(asked) == 1:  # between all recordings and those that the filter takes
                writer.set_bank(some_bank(0))
            return scores

        monkeypatch.setattr(reader, "recording_scores", and_change)
        assert find(reader, QUERIES[:2], k=4, only=only, alpha=ALPHA) == wanted
        assert len(asked) == 4


def test_many_queries_are_of_one_moment(opened: Open) -> None:
    banks = [some_bank(0), some_bank(1)]
    queries = np.repeat(QUERIES[:1], 33, axis=0)
    with opened(write=True, info=INFO) as writer, opened() as reader:
        writer.put(some(30))
        writer.set_bank(banks[0])
        done = threading.Event()

        def change() -> None:
            try:
                for number in range(1, 12):
                    writer.set_bank(banks[number % 2])
            finally:
                done.set()

        thread = threading.Thread(target=change)
        thread.start()
        while not done.is_set():
            scores = reader.recording_scores(queries, alpha=ALPHA).scores
            np.testing.assert_allclose(scores, np.repeat(scores[:1], 33, axis=0), atol=1e-6)
        thread.join()
