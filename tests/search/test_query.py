"""Hits are what a slow reading of the rules gives, and bad moments are said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import DIM, INFO, embedded, unit
from tiny_bundle import make_public_clap, write_noise

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search import query as asking
from atr_moco_plugin.search.build import build, index_info
from atr_moco_plugin.search.hits import merged
from atr_moco_plugin.search.local import create_local
from atr_moco_plugin.search.local.reading import LocalReader
from atr_moco_plugin.search.query import combined, find
from atr_moco_plugin.search.rerank import read_moment, rerank
from atr_moco_plugin.search.sources import list_sounds
from atr_moco_plugin.search.store import (
    Embedded,
    Filter,
    Recording,
    RecordingScores,
    Store,
    WindowHit,
)

AXES = np.eye(DIM, dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with create_local(tmp_path / "index", INFO) as store:
        yield store


def recording(path: str, *cosines: dict[int, float] | float) -> Embedded:
    """A recording whose windows have given cosines with some axes (with the first, for a number);
    windows of 10 s every 5 s. The rest lies along the last axis."""
    count = len(cosines)
    vectors = np.zeros((count, DIM), np.float32)
    for row, own in zip(vectors, cosines, strict=True):
        for axis, value in ({0: own} if isinstance(own, float | int) else own).items():
            row[axis] = value
        row[-1] = np.sqrt(1 - (row**2).sum())
    sample = embedded(path, count)
    return Embedded(sample.recording, sample.spans, vectors)


def test_a_filter_that_says_nothing_asks_nothing_of_the_recordings(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([recording("/a", 0.5, 0.1), recording("/b", 0.2)])
    plain = [find(store, AXES[:n], k=3) for n in (1, 2)]

    def refuse(*_: object) -> bool:
        raise AssertionError("a recording is asked about")

    monkeypatch.setattr(Filter, "takes_any", refuse)
    assert [find(store, AXES[:n], k=3, only=Filter()) for n in (1, 2)] == plain
    with pytest.raises(AssertionError, match="a recording is asked about"):
        find(store, AXES[:1], only=Filter(min_seconds=1))
    with pytest.raises(InputError, match="the pattern of paths is empty"):
        find(store, AXES[:1], only=Filter(path=""))


def told(hits: list[asking.Hit]) -> list[tuple[str, float, float, float]]:
    return [(hit.recording.path, hit.start, hit.end, hit.moment_start) for hit in hits]


def test_windows_that_overlap_or_touch_are_one_hit(store: Store) -> None:
    # Every 5 s:             0    5    10   15   20   25   30
    store.put([recording("/a", 0.1, 0.8, 0.6, 0.0, 0.0, 0.7, 0.2), recording("/b", 0.5)])
    hits = find(store, AXES[:1], k=3)
    assert told(hits) == [("/a", 5, 20, 5), ("/a", 25, 35, 25), ("/b", 0, 10, 0)]
    assert [round(hit.score, 2) for hit in hits] == [0.8, 0.7, 0.5]
    assert hits[0].moment_end == 15 and hits[0].reranked is None
    assert store.windows([hits[1].window])[0].start == 25
    assert told(find(store, AXES[:1], k=2)) == [("/a", 5, 15, 5), ("/a", 25, 35, 25)]
    assert told(find(store, AXES[:1], k=1)) == [("/a", 5, 15, 5)]
    # With no more windows left all of a recording have met.
    assert told(find(store, AXES[:1], k=4)) == [("/a", 0, 40, 5), ("/b", 0, 10, 0)]


def test_more_windows_are_asked_for_until_there_are_enough_hits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = [0.9 - 0.001 * n for n in range(100)]
    store.put([recording("/long", *steady), recording("/b", 0.5), recording("/c", -0.5)])
    expected = [("/long", 0, 505, 0), ("/b", 0, 10, 0), ("/c", 0, 10, 0)]
    assert told(find(store, AXES[:1], k=2)) == expected[:2]
    assert told(find(store, AXES[:1], k=3)) == expected
    assert told(find(store, AXES[:1], k=9)) == expected
    assert told(find(store, AXES[:1], k=3, only=Filter(path="/[bc]"))) == expected[1:]
    # The first recording alone has more windows than are looked at.
    monkeypatch.setattr(asking, "_MOST", 20)
    assert told(find(store, AXES[:1], k=3)) == [("/long", 0, 105, 0), *expected[1:]]


windows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 3)), max_size=14, unique=True
)


@given(windows=windows, k=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_merging_is_that_of_sets_of_seconds(windows: list[tuple[int, int, int]], k: int) -> None:
    ranked = [
        WindowHit(
            place,
            Recording(path=str(name), size=0, mtime_ns=0, digest="", seconds=0),
            start,
            start + length,
            1 - place / 100,
            1 - place / 100,
        )
        for place, (name, start, length) in enumerate(windows)
    ]
    groups: list[list[WindowHit]] = []
    for window in ranked:
        if len(groups) == k:
            break
        groups.append([window])
        while True:  # join any two that meet, until none do
            pair = next(
                (
                    (a, b)
                    for a in groups
                    for b in groups
                    if a is not b
                    and any(
                        x.recording == y.recording and x.start <= y.end and y.start <= x.end
                        for x in a
                        for y in b
                    )
                ),
                None,
            )
            if pair is None:
                break
            groups.remove(pair[1])
            pair[0].extend(pair[1])
    expected = sorted(
        (
            min(x.window for x in group),
            min(x.start for x in group),
            max(x.end for x in group),
        )
        for group in groups
    )
    hits = merged(ranked, k)
    assert [(hit.window, hit.start, hit.end) for hit in hits] == expected
    assert all(hit.score == 1 - hit.window / 100 for hit in hits)


def test_several_sentences(store: Store) -> None:
    """A dog (axis 0) and rain (axis 1), no wind (axis 2)."""
    store.put(
        [
            recording("/dog", {0: 0.9}),
            recording("/dog and rain", {0: 0.6}, {}, {1: 0.6}, {0: 0.5, 1: 0.5}),
            recording("/dog and rain in wind", {0: 0.65, 1: 0.65}, {2: 0.7}),
            recording("/rain", {1: 0.9}),
            recording("/wind", {2: 0.9}),
        ]
    )
    both = find(store, AXES[:2])
    assert [hit.recording.path for hit in both][:2] == ["/dog and rain in wind", "/dog and rain"]
    calm = find(store, AXES[:2], AXES[2:3])
    assert [hit.recording.path for hit in calm][0] == "/dog and rain"
    assert len(calm) == 5 and find(store, AXES[:2], AXES[2:3], k=2) == calm[:2]
    # By hand, with the best cosines of each recording.
    cosines = np.array([[0.9, 0.6, 0.65, 0, 0], [0, 0.6, 0.65, 0.9, 0], [0, 0, 0.7, 0, 0.9]])
    z = (cosines - cosines.mean(axis=1, keepdims=True)) / cosines.std(axis=1, keepdims=True)
    expected = np.minimum(z[0], z[1]) - np.maximum(z[2], 0)
    paths = ["/dog", "/dog and rain", "/dog and rain in wind", "/rain", "/wind"]
    got = {hit.recording.path: hit.score for hit in calm}
    np.testing.assert_allclose([got[path] for path in paths], expected, atol=5e-3)
    assert [hit.score for hit in calm] == sorted(got.values(), reverse=True)
    assert [round(hit.cosine, 2) for hit in calm if hit.recording.path == "/dog"] == [0.9]
    # The moment is the first sentence's; what the others found is joined where it touches.
    assert told(calm)[0] == ("/dog and rain", 0, 20, 0)
    assert told(find(store, AXES[[1, 0]], AXES[2:3]))[0] == ("/dog and rain", 0, 20, 10)
    # A filter changes which recordings come, and no score.
    some = find(store, AXES[:2], AXES[2:3], only=Filter(path="*rain*"))
    assert some == [hit for hit in calm if "rain" in hit.recording.path]
    # What is not wanted counts as much as one says.
    free = find(store, AXES[:2], AXES[2:3], penalty=0.0)
    assert [hit.score for hit in free] == [hit.score for hit in both]


def test_a_recording_that_is_replaced_while_it_is_compared(tmp_path: Path) -> None:
    replaced = iter(range(3))

    class Raced(LocalReader):
        """A writer is at work after each comparison, three times."""

        def recording_scores(self, *arguments: Any, **options: Any) -> RecordingScores:
            scores = super().recording_scores(*arguments, **options)
            if next(replaced, None) is not None:
                writer.put([recording("/dog", {0: 0.9})])
            return scores

    with create_local(tmp_path / "index", INFO) as writer:
        writer.put([recording("/dog", {0: 0.9}), recording("/rain", {1: 0.9})])
        with Raced(tmp_path / "index") as reader:
            hits = find(reader, AXES[:1], AXES[1:2])
    assert [hit.recording.path for hit in hits] == ["/dog", "/rain"]


def test_one_sentence_and_another_that_is_not_wanted(store: Store) -> None:
    store.put([recording("/a", {0: 0.9, 1: 0.3}), recording("/b", {0: 0.8}), recording("/c", {})])
    assert [hit.recording.path for hit in find(store, AXES[:1])] == ["/a", "/b", "/c"]
    assert [hit.recording.path for hit in find(store, AXES[:1], AXES[1:2])] == ["/b", "/a", "/c"]


def test_recordings_that_cannot_be_told_apart(store: Store) -> None:
    assert find(store, AXES[:2]) == find(store, AXES[:1]) == []
    store.put([recording("/only", {0: 0.5})])
    assert [(hit.score, hit.recording.path) for hit in find(store, AXES[:2])] == [(0.0, "/only")]
    store.put([recording("/same", {0: 0.5}), recording("/third", {0: 0.5})])
    hits = find(store, AXES[:2], AXES[2:3])
    assert [hit.score for hit in hits] == [0.0] * 3
    assert [hit.recording.path for hit in hits] == ["/only", "/same", "/third"]  # as they came
    assert find(store, AXES[:2], only=Filter(path="/none")) == []


def test_equal_recordings_have_equal_scores() -> None:
    cosines = np.random.default_rng(0).normal(0, 0.05, (3, 500)).astype(np.float32)
    cosines[:, 400:] = cosines[:, :100] + np.float32(6e-8)
    scores = combined(cosines, cosines, 2, 1.0)
    assert (scores[:100] == scores[400:]).mean() > 0.9


@pytest.mark.parametrize(
    ("wanted", "options"),
    [(AXES[:0], {}), (AXES[:1], {"k": 0}), (AXES[:2], {"k": 0}), (AXES[:2], {"penalty": -1.0})],
)
def test_what_cannot_be_asked(store: Store, wanted: np.ndarray, options: dict) -> None:
    with pytest.raises(ValueError, match="needs something wanted"):
        find(store, wanted, **options)


# With a model and sounds.


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(6):
        write_noise(folder / f"{number}.wav", 0.5 + 0.7 * number, seed=number)
    return folder


@pytest.fixture
def filled(tmp_path: Path, sounds: Path, tiny_retriever: AudioTextRetriever) -> Iterator[Store]:
    with create_local(tmp_path / "sounds index", index_info(tiny_retriever)) as store:
        build(store, tiny_retriever, list_sounds(str(sounds)))
        yield store


SENTENCE = "a dog barks far away"


def ask(store: Store, retriever: AudioTextRetriever, k: int = 10) -> list[asking.Hit]:
    return find(store, retriever.embed_text(SENTENCE).numpy(), k=k)


def test_reranked_as_an_evaluation_does(filled: Store, tiny_retriever: AudioTextRetriever) -> None:
    hits = ask(filled, tiny_retriever)
    assert len(hits) == 6
    found = rerank(hits, tiny_retriever, SENTENCE)
    assert {hit.recording for hit in found} == {hit.recording for hit in hits}
    scores = [hit.reranked for hit in found]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    for hit in found:
        windows = list(tiny_retriever.windows(hit.recording.path))
        window = next(x for x in windows if abs(x.start - hit.moment_start) < 1e-6)
        log_odds = float(tiny_retriever.match_windows([SENTENCE], [window.waveform])[0])
        assert hit.cosine == hit.score
        expected = log_odds + hit.score / tiny_retriever.temperature
        assert hit.reranked == pytest.approx(expected, abs=1e-4)
    assert rerank([], tiny_retriever, SENTENCE) == []


def test_a_moment_is_read_as_it_was_embedded(
    filled: Store, sounds: Path, tmp_path: Path, tiny_retriever: AudioTextRetriever
) -> None:
    samples, rate = soundfile.read(sounds / "5.wav", dtype="float32")
    for hit in ask(filled, tiny_retriever):
        waveform = read_moment(hit, tiny_retriever)
        first = round(hit.moment_start * rate)
        own = soundfile.read(hit.recording.path, dtype="float32")[0]
        np.testing.assert_array_equal(waveform, own[first : round(hit.moment_end * rate)])
    # Of a part of a file, times count from the beginning of the part.
    (tmp_path / "table.csv").write_text("path,start,end\nsounds/5.wav,0.5,3.5\n")
    with create_local(tmp_path / "parts", index_info(tiny_retriever)) as store:
        build(store, tiny_retriever, list_sounds(str(tmp_path / "table.csv")))
        (hit,) = ask(store, tiny_retriever, k=1)
        first = round((0.5 + hit.moment_start) * rate)
        waveform = read_moment(hit, tiny_retriever)
        np.testing.assert_array_equal(waveform, samples[first : first + len(waveform)])
        assert len(waveform) == rate


def test_a_file_that_is_gone_or_changed_keeps_its_place(
    filled: Store,
    sounds: Path,
    tiny_retriever: AudioTextRetriever,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hits = ask(filled, tiny_retriever)
    whole = rerank(hits, tiny_retriever, SENTENCE)
    gone, changed = hits[1].recording, hits[4].recording
    os.unlink(gone.path)
    write_noise(Path(changed.path), 3.0, seed=9)
    found = rerank(hits, tiny_retriever, SENTENCE)
    assert (found[1], found[4]) == (hits[1], hits[4])
    rest = [hit for hit in whole if hit.recording not in (gone, changed)]
    assert [hit.window for n, hit in enumerate(found) if n not in (1, 4)] == [
        x.window for x in rest
    ]
    said = sorted(record.getMessage() for record in caplog.records)
    assert f"{gone.path}: no such file" in "".join(said)
    assert f"{changed.path}: has changed since it was indexed; index it again" in "".join(said)
    for name in os.listdir(sounds):
        os.unlink(sounds / name)
    assert rerank(hits, tiny_retriever, SENTENCE) == hits


def test_a_model_without_a_head(filled: Store, tmp_path: Path, tiny_bundle: Path) -> None:
    clap = AudioTextRetriever.from_pretrained(make_public_clap(tmp_path / "clap"), device="cpu")
    (first,) = find(filled, unit(np.ones((1, filled.info.embed_dim))), k=1)
    with pytest.raises(InputError, match="has no trained matching head"):
        rerank([first], clap, SENTENCE)
