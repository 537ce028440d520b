"""What every engine does: the same tests for each of them."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.store import Counts, Embedded, Filter, IndexInfo, Recording, Store

DIM = 8
INFO = IndexInfo(
    model="/models/caf\udce9",
    fingerprint="a" * 64,
    embed_dim=DIM,
    sample_rate=16_000,
    window_seconds=10.0,
    hop_seconds=5.0,
)
HALF = 2e-3
"""What float16 loses of a cosine, at most."""

Open = Callable[..., Store]


def unit(rng: np.random.Generator, rows: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def embedded(
    path: str, vectors: NDArray[np.float32], member: str = "", seconds: float | None = None
) -> Embedded:
    count = len(vectors)
    starts = np.arange(count) * 5.0
    recording = Recording(
        path=path,
        member=member,
        size=2**40 + count,
        mtime_ns=1_700_000_000_123_456_789,
        digest="d" * 64,
        seconds=count * 5.0 + 5.0 if seconds is None else seconds,
    )
    return Embedded(recording, np.stack([starts, starts + 10.0], axis=1), vectors)


def broken(path: str, problem: str = "it is no sound") -> Embedded:
    recording = Recording(
        path=path, size=3, mtime_ns=4, digest="e" * 64, seconds=0.0, problem=problem
    )
    return Embedded(recording, np.empty((0, 2)), np.empty((0, DIM), np.float32))


def some(count: int, seed: int = 0) -> list[Embedded]:
    rng = np.random.default_rng(seed)
    return [embedded(f"/a/{i:03}.wav", unit(rng, 1 + i % 4)) for i in range(count)]


def best(one: Embedded, query: NDArray[np.float32]) -> float:
    return float((one.embeddings @ query).max())


def check(store: Store, expected: list[Embedded], only: Filter | None = None) -> None:
    """The store answers as the slow way over what was put does."""
    chosen = sorted(
        (one for one in expected if len(one.embeddings)),
        key=lambda one: [name.encode("utf-8", "surrogateescape") for name in one.recording.key],
    )
    queries = unit(np.random.default_rng(9), 3)
    scores = store.recording_scores(queries, only)
    wanted = np.array([[best(one, query) for one in chosen] for query in queries])
    assert scores.scores.dtype == np.float32 and scores.windows.dtype == np.int64
    np.testing.assert_allclose(scores.scores, wanted.reshape(3, len(chosen)), atol=HALF)
    every = sum(len(one.embeddings) for one in chosen)
    for query, hits, row in zip(
        queries, store.nearest(queries, every + 5, only), scores.windows, strict=True
    ):
        assert len(hits) == len({hit.window for hit in hits}) == every
        places = [(-hit.score, hit.window) for hit in hits]
        assert places == sorted(places)
        by_key = {one.recording.key: one for one in chosen}
        for hit in hits:
            one = by_key[hit.recording.key]
            (at,) = np.flatnonzero(one.spans[:, 0] == hit.start)
            assert hit.recording == one.recording and hit.end == one.spans[at, 1]
            assert hit.score == pytest.approx(float(one.embeddings[at] @ query), abs=HALF)
        found = store.windows([int(number) for number in row])
        assert [hit.recording for hit in found] == [one.recording for one in chosen]
        first = store.nearest(query[None], 4, only)[0]
        assert [hit.window for hit in first] == [hit.window for hit in hits[:4]]


def test_an_empty_index(opened: Open) -> None:
    with opened(write=True, info=INFO) as store:
        assert store.info == INFO
        assert store.counts() == Counts(0, 0, 0.0, 0)
        assert list(store.recordings()) == []
        check(store, [])
        store.put([])
        store.remove([])
        store.remove([("/a", "")])
        assert store.windows([]) == []


def test_what_was_put_is_found_and_there_when_it_is_opened_again(opened: Open) -> None:
    things = [*some(30), broken("/a/0.wav"), broken("/z", "\udce9 in\nits name 🐕")]
    with opened(write=True, info=INFO) as store:
        store.put(things[:10])
        store.put(things[10:])
        check(store, things)
        store.finish()
        check(store, things)
    with opened() as store:
        assert store.info == INFO
        check(store, things)
        windows = sum(len(one.embeddings) for one in things)
        seconds = sum(one.recording.seconds for one in things)
        assert store.counts() == Counts(30, windows, seconds, 2)
        assert set(store.recordings()) == {one.recording for one in things}


def test_names_of_any_bytes_come_back_in_the_order_of_their_bytes(opened: Open) -> None:
    vectors = unit(np.random.default_rng(0), 1)
    keys = [
        ("/\U00100000", ""),  # the most that UTF-8 has, below bytes that are not UTF-8
        ("/caf\udce9", ""),
        ("/café", ""),
        ("/a\nb\t'\";--%s\\", ""),
        ("/🐕.wav", ""),
        ("/t.tar", ""),
        ("/t.tar", "a/b.wav"),
        ("/t.tar", "\udcff"),
        ("/t.tar", "#t=30,40"),
        ("/" + "x/" * 2000, "y" * 5000),
    ]
    things = [embedded(path, vectors, member) for path, member in keys]
    with opened(write=True, info=INFO) as store:
        store.put(things)
        found = [recording.key for recording in store.recordings()]
        assert found == sorted(
            keys, key=lambda key: [name.encode("utf-8", "surrogateescape") for name in key]
        )
        check(store, things)
        store.remove(keys[:4])
        check(store, things[4:])


def test_a_recording_that_is_put_again_is_replaced(opened: Open) -> None:
    old, new = some(8), some(8, seed=1)
    with opened(write=True, info=INFO) as store:
        store.put(old)
        store.finish()
        gone = store.nearest(old[3].embeddings[:1], 1)[0][0].window
        store.put(new[2:5])
        check(store, [*old[:2], *new[2:5], *old[5:]])
        with pytest.raises(InputError, match="no window"):
            store.windows([gone])
        store.put([broken(old[0].recording.path)])
        check(store, [old[1], *new[2:5], *old[5:]])
        assert store.counts().broken == 1
        store.put([old[0]])
        check(store, [*old[:2], *new[2:5], *old[5:]])
        assert store.counts().broken == 0


def test_of_the_same_recording_twice_the_last_counts(opened: Open) -> None:
    one, two = some(1)[0], some(1, seed=1)[0]
    with opened(write=True, info=INFO) as store:
        store.put([one, two])
        check(store, [two])
        assert store.counts().recordings == 1


def test_what_was_removed_is_never_found(opened: Open) -> None:
    things = some(12)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        store.finish()
        store.remove([things[0].recording.key, ("/never", "there"), things[7].recording.key])
        check(store, [*things[1:7], *things[8:]])
    with opened(write=True, info=INFO) as store:
        store.remove([one.recording.key for one in things])
        check(store, [])
        assert store.counts() == Counts(0, 0, 0.0, 0)
        store.put(things[:2])
        check(store, things[:2])


def test_a_newer_time_leaves_the_windows(opened: Open) -> None:
    things = some(3)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        before = store.recording_scores(things[0].embeddings)
        store.touch({things[1].recording.key: 5, ("/never", ""): 6})
        recordings = list(store.recordings())
        assert [one.mtime_ns for one in recordings] == [
            things[0].recording.mtime_ns, 5, things[2].recording.mtime_ns,
        ]  # fmt: skip
        after = store.recording_scores(things[0].embeddings)
        np.testing.assert_array_equal(before.windows, after.windows)
        things[1] = things[1]._replace(recording=replace(things[1].recording, mtime_ns=5))
        check(store, things)


def test_ties_go_by_the_number_of_the_window(opened: Open) -> None:
    vector = unit(np.random.default_rng(0), 1)
    things = [embedded(f"/{9 - i}.wav", np.repeat(vector, 3, axis=0)) for i in range(9)]
    with opened(write=True, info=INFO) as store:
        for one in things:
            store.put([one])
        hits = store.nearest(vector, 7)[0]
        numbers = [hit.window for hit in hits]
        assert numbers == sorted(numbers)
        assert [hit.recording.path for hit in hits[:4]] == ["/9.wav"] * 3 + ["/8.wav"]
        scores = store.recording_scores(vector)
        assert [hit.start for hit in store.windows(scores.windows[0])] == [0.0] * 9


NAMES = ["/a/dog.wav", "/a/Dog.flac", "/b/🐕.wav", "/b/caf\udce9.wav", "/b/café.wav", "/b/x\ny.wav"]
NAMES += ["/c/[1].wav", "/c/a-b.wav", "/c/a\\b.wav", "/c/$^.wav", "/c/(a|b)+.wav", "/c/!.wav"]
PATTERNS = [
    "*",
    "*.wav",
    "/a/*",
    "*dog*",
    "?a?dog.wav",
    "*/🐕*",
    "*caf?.wav",
    "*caf\udce9*",
    "*x?y*",
]
PATTERNS += [
    "*[[]1]*",
    "*/[1].wav",
    "*[a-c]-b*",
    "*[!a-c]*",
    "*a\\b*",
    "*$^*",
    "*(a|b)+*",
    "*[!!]*",
]
PATTERNS += [
    "*[]a]*",
    "*[",
    "*[!]",
    "*[z-a]*",
    "*[!z-a]b*",
    "",
    "nothing",
    "*[a-]b*",
    "*[\\]b*",
    "\0*",
]
PATTERNS += ["*t.tar/*", "*#t=3*", "*[é]*", "*[à-ë]*"]


def test_a_pattern_chooses_as_a_shell_does(opened: Open) -> None:
    rng = np.random.default_rng(0)
    things = [embedded(name, unit(rng, 2)) for name in NAMES]
    things += [embedded("/t.tar", unit(rng, 2), member) for member in ("a.wav", "#t=3,4")]
    with opened(write=True, info=INFO) as store:
        store.put(things)
        store.finish()
        for pattern in PATTERNS:
            chosen = [one for one in things if fnmatchcase(one.recording.name, pattern)]
            try:
                check(store, chosen, Filter(path=pattern))
            except AssertionError as ex:
                raise AssertionError(f"pattern {pattern!r}") from ex


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_pattern_chooses_names_however_their_accents_are_written(
    opened: Open, form: Literal["NFC", "NFD"]
) -> None:
    """macOS writes an accent and its letter as two characters, a keyboard as one."""
    names = ["/d/" + unicodedata.normalize(other, "caféü.wav") for other in ("NFC", "NFD")]
    things = [embedded(name, unit(np.random.default_rng(0), 2)) for name in (*names, "/d/cafe.wav")]
    with opened(write=True, info=INFO) as store:
        store.put(things)
        store.finish()
        for pattern in ("*é*", "*caf?ü.wav", "*[é]*"):
            check(store, things[:2], Filter(path=unicodedata.normalize(form, pattern)))


def test_lengths_choose_with_their_ends(opened: Open) -> None:
    things = some(20)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        only = Filter(path="*/0?[0-5].wav", min_seconds=15.0, max_seconds=20.0)
        chosen = [
            one
            for one in things
            if fnmatchcase(one.recording.path, only.path or "")
            and 15.0 <= one.recording.seconds <= 20.0
        ]
        assert 0 < len(chosen) < 10
        check(store, chosen, only)
        check(store, [], Filter(min_seconds=1e9))


def test_windows_come_in_the_order_that_they_are_asked_in(opened: Open) -> None:
    things = some(6)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        hits = store.nearest(things[0].embeddings[:1], 5)[0]
        numbers = [hits[2].window, hits[0].window, hits[2].window]
        expected = [hits[2], hits[0], hits[2]]
        assert store.windows(numbers) == [hit._replace(score=0.0, cosine=0.0) for hit in expected]
        for unknown in (10**12, -1):
            with pytest.raises(InputError, match=f"no window {unknown}"):
                store.windows([hits[0].window, unknown])


def test_an_index_of_another_model_is_refused(opened: Open) -> None:
    with opened(write=True, info=INFO) as store:
        store.put(some(2))
    for write in (True, False):
        with pytest.raises(InputError, match="model"):
            opened(write=write, info=replace(INFO, fingerprint="b" * 64))
    # The same model from another place.
    with opened(write=True, info=replace(INFO, model="elsewhere")) as store:
        check(store, some(2))


def test_an_index_that_is_not_there_is_refused(opened: Open) -> None:
    for write in (True, False):
        with pytest.raises(InputError, match="no index"):
            opened(write=write)


def test_what_does_not_fit_is_refused_whole(opened: Open) -> None:
    things = some(4)
    wide = things[3]._replace(embeddings=np.ones((4, DIM + 1), np.float32))
    short = things[3]._replace(spans=things[3].spans[:2])
    with opened(write=True, info=INFO) as store:
        store.put(things[:1])
        longer = things[3]._replace(embeddings=things[3].embeddings * np.float32(1.005))
        for wrong in (wide, short, longer):
            with pytest.raises(ValueError):
                store.put([*things[1:3], wrong])
            check(store, things[:1])
        with pytest.raises(ValueError):
            store.nearest(np.ones((1, DIM + 1), np.float32), 3)
        with pytest.raises(ValueError):
            store.recording_scores(np.ones((1, DIM + 1), np.float32))
        query = things[0].embeddings[:1]
        for rows in (query * 30, query * 0, query * 1.02):
            with pytest.raises(InputError, match="a query has the length .*, expected 1"):
                store.nearest(np.concatenate([query, rows]), 3)
            with pytest.raises(InputError, match="divide it by its length"):
                store.recording_scores(rows)
        assert store.nearest(query.astype(np.float16), 1)  # rounding is no fault
        store.put(things[1:])
        check(store, things)


def test_a_reader_sees_what_is_put_while_it_is_open(opened: Open) -> None:
    things = some(10)
    with opened(write=True, info=INFO) as writer:
        writer.put(things[:2])
        with opened() as reader:
            check(reader, things[:2])
            writer.put(things[2:])
            check(reader, things)
            writer.finish()
            check(reader, things)
            writer.remove([things[4].recording.key])
            check(reader, things[:4] + things[5:])
            with pytest.raises(ValueError, match="read"):
                reader.put(things[4:5])
            with pytest.raises(ValueError, match="read"):
                reader.remove([things[0].recording.key])
            check(reader, things[:4] + things[5:])


def test_recordings_are_put_while_they_are_listed(opened: Open) -> None:
    things = some(20)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        paths = []
        for number, recording in enumerate(store.recordings()):
            paths.append(recording.path)
            store.put([embedded(f"/z/{number}", things[3].embeddings)])
            store.remove([recording.key])
        assert paths[:20] == [one.recording.path for one in things]


OTHER = """
import sys
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.engines import open_index
try:
    open_index(sys.argv[1], write=True)
except InputError as ex:
    print(ex)
"""


def test_two_writers(opened: Open, index: tuple[str, str | None]) -> None:
    command = [sys.executable, "-c", OTHER, index[0]]
    with opened(write=True, info=INFO) as store:
        store.put(some(2))
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "in use by process" in said and "s3cret" not in said
        check(store, some(2))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_threads_share_a_store(opened: Open) -> None:
    things = some(40)
    with opened(write=True, info=INFO) as store:
        store.put(things)
        store.finish()
    with opened() as store, ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(check, store, things) for _ in range(16)]:
            done.result()


@pytest.mark.parametrize("seed", range(3))
def test_after_any_changes_it_is_as_if_filled_at_once(opened: Open, seed: int) -> None:
    rng = np.random.default_rng(seed)
    now: dict[str, Embedded] = {}
    for _ in range(4):
        with opened(write=True, info=INFO) as store:
            for _ in range(6):
                paths = [f"/{rng.integers(30)}" for _ in range(rng.integers(1, 8))]
                if rng.random() < 0.4:
                    store.remove([(path, "") for path in paths])
                    for path in paths:
                        now.pop(path, None)
                else:
                    things = [embedded(path, unit(rng, int(rng.integers(1, 5)))) for path in paths]
                    store.put(things)
                    now |= {one.recording.path: one for one in things}
                check(store, list(now.values()))
                if rng.random() < 0.3:
                    store.finish()
                    check(store, list(now.values()))
    with opened() as store:
        check(store, list(now.values()))
        check(
            store, [one for one in now.values() if one.recording.path[1] == "1"], Filter(path="/1*")
        )
