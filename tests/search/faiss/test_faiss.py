"""What an index that FAISS searches does beside the contract of all engines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from indexes import make_up_bank
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.store import Embedded, Filter, IndexInfo, Recording, Store, WindowHit

pytest.importorskip("faiss")

DIM = 24
INFO = IndexInfo(
    model="m",
    fingerprint="f",
    embed_dim=DIM,
    sample_rate=16_000,
    window_seconds=10.0,
    hop_seconds=10.0,
)
WINDOWS = 10


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def near_topics(count: int, seed: int) -> NDArray[np.float32]:
    """Vectors around a few topics, as embeddings are."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((50, DIM))
    return unit(topics[rng.integers(50, size=count)] + 1.5 * rng.standard_normal((count, DIM)))


def things(count: int, seed: int = 1, name: str = "a") -> list[Embedded]:
    """Recordings of ten windows each."""
    vectors = near_topics(count * WINDOWS, seed).reshape(count, WINDOWS, DIM)
    starts = np.arange(WINDOWS) * 10.0
    spans = np.stack([starts, starts + 10.0], axis=1)
    return [
        Embedded(
            Recording(path=f"/{name}/{i}", size=1, mtime_ns=2, digest="d", seconds=float(i)),
            spans,
            rows,
        )
        for i, rows in enumerate(vectors)
    ]


EVERY = things(3000)
QUERIES = near_topics(40, seed=2)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """An index of 30,000 windows with a file of FAISS."""
    with open_index(tmp_path / "index", write=True, info=INFO, engine="faiss") as store:
        store.put(EVERY)
        store.finish()
    return tmp_path / "index"


def files(index: Path) -> list[str]:
    return sorted(path.name for path in index.glob("*.faiss"))


def same(found: list[list[WindowHit]], exact: list[list[WindowHit]]) -> float:
    """Part of the exact hits that are found; scores and order of what is found are checked."""
    common = 0
    for some, all_ in zip(found, exact, strict=True):
        assert len(some) == len(all_)
        places = [(-hit.score, hit.window) for hit in some]
        assert places == sorted(places)
        scores = {hit.window: hit for hit in all_}
        assert all(scores.get(hit.window, hit) == hit for hit in some)
        common += len({hit.window for hit in some} & set(scores))
    return common / sum(map(len, exact))


def both(index: Path, k: int = 10, only: Filter | None = None) -> float:
    with open_index(index) as store, open_index(index, engine="exact") as exact:
        return same(store.nearest(QUERIES, k, only), exact.nearest(QUERIES, k, only))


def holds(store: Store, one: Embedded, whole: bool = True) -> bool:
    """Whether a recording is found by its own windows; if not, that no search finds it."""
    hits = [hits[0].recording.path for hits in store.nearest(one.embeddings, 1)]
    return [path == one.recording.path for path in hits] == [whole] * WINDOWS


def test_it_finds_nearly_all_and_scores_them_exactly(filled: Path) -> None:
    assert files(filled) == ["vectors-1.faiss"]
    recall = both(filled)
    assert 0.95 <= recall < 1.0  # it does ask FAISS
    assert both(filled, k=1001) == 1.0


def test_corrected_it_finds_nearly_all_and_scores_them_exactly(filled: Path) -> None:
    """The file knows cosines alone: more candidates are scored, by vectors and offsets."""
    with open_index(filled, write=True) as store:
        store.set_bank(make_up_bank(near_topics(400, seed=5)))
        corrected = [store.nearest(QUERIES, 10, alpha=alpha) for alpha in (0.75, 1.5)]
        many = store.nearest(QUERIES[:3], 126, alpha=0.75)
        plain = store.nearest(QUERIES, 10)
    with open_index(filled, engine="exact") as store:
        exact = [store.nearest(QUERIES, 10, alpha=alpha) for alpha in (0.75, 1.5)]
        assert 0.95 <= same(corrected[0], exact[0]) < 1.0  # it does ask FAISS
        kept = [
            {x.window for x in a} & {x.window for x in b}
            for a, b in zip(exact[0], plain, strict=True)
        ]
        assert sum(map(len, kept)) < 0.9 * 10 * len(QUERIES)  # the correction changes something
        # What FAISS would find too little of is searched exactly.
        assert same(corrected[1], exact[1]) == 1.0
        assert same(many, store.nearest(QUERIES[:3], 126, alpha=0.75)) == 1.0
    new = things(100, seed=3, name="b")
    with open_index(filled, write=True) as store:
        store.put(new)
        store.remove([one.recording.key for one in EVERY[:200]])
    with open_index(filled) as store, open_index(filled, engine="exact") as every:
        for only in (None, Filter(path="/[ab]/*", min_seconds=10.0)):
            found = store.nearest(QUERIES, 10, only, 0.75)
            assert same(found, every.nearest(QUERIES, 10, only, 0.75)) >= 0.95
        queries = new[0].embeddings
        found = store.nearest(queries, 5, alpha=0.75)
        assert same(found, every.nearest(queries, 5, alpha=0.75)) >= 0.9


def test_the_same_recordings_are_found_again_and_by_another_build(
    filled: Path, tmp_path: Path
) -> None:
    with open_index(tmp_path / "other", write=True, info=INFO, engine="faiss") as other:
        other.put(EVERY[:1000])
        other.put(EVERY[1000:])
        other.finish()
        with open_index(filled) as store:
            assert store.nearest(QUERIES, 10) == store.nearest(QUERIES, 10)
            assert store.nearest(QUERIES, 10) == other.nearest(QUERIES, 10)
            alone = [store.nearest(query[None], 10)[0] for query in QUERIES]
            assert store.nearest(QUERIES, 10) == alone


@pytest.mark.parametrize(
    "only", [Filter(min_seconds=500), Filter(max_seconds=99), Filter(path="/a/1*")]
)
def test_filters_with_many_and_with_few_recordings(filled: Path, only: Filter) -> None:
    assert both(filled, only=only) >= 0.95
    with open_index(filled) as store:
        hits = store.nearest(QUERIES, 10, only)
        assert all(only.takes(hit.recording) for some in hits for hit in some)


def test_new_and_removed_windows_before_the_file_is_brought_up_to_date(filled: Path) -> None:
    new = things(40, seed=3, name="new")
    with open_index(filled, write=True) as store, open_index(filled) as reader:
        assert holds(reader, EVERY[7])
        store.remove([EVERY[7].recording.key])
        store.put(new)
        store.put([EVERY[8]._replace(embeddings=new[0].embeddings[::-1].copy())])
        for some in (store, reader):
            assert not holds(some, EVERY[7]) and not holds(some, EVERY[8], whole=True)
            assert all(holds(some, one) for one in new[1:])
        store.finish()  # too little is new
        assert files(filled) == ["vectors-1.faiss"]
    assert both(filled) >= 0.95


def test_the_file_grows_with_the_index(filled: Path) -> None:
    new = things(400, seed=3, name="new")
    with open_index(filled) as reader:
        reader.nearest(QUERIES, 1)
        with open_index(filled, write=True) as store:
            store.put(new)
            store.finish()
            assert files(filled) == ["vectors-2.faiss"]
            assert all(holds(store, one) for one in new)
        assert all(holds(reader, one) for one in new)
    assert both(filled) >= 0.95


def test_an_index_made_anew_while_it_is_read(filled: Path) -> None:
    with open_index(filled) as reader:
        assert all(holds(reader, one) for one in EVERY[:20])
        shutil.rmtree(filled)
        with open_index(filled, write=True, info=INFO, engine="faiss") as store:
            store.put(EVERY[::-1])
            store.finish()
        with open_index(filled, engine="exact") as exact:
            assert same(reader.nearest(QUERIES, 10), exact.nearest(QUERIES, 10)) >= 0.95


def test_vectors_that_move_to_another_file_are_still_found(filled: Path) -> None:
    with open_index(filled, write=True) as store:
        store.remove([one.recording.key for one in EVERY[: len(EVERY) * 6 // 10]])
        assert (filled / "vectors-1.f16").is_file()  # what is left was written anew
        store.put(things(2000, seed=4, name="b"))
        assert both(filled) >= 0.95
        store.finish()
        assert files(filled) == ["vectors-2.faiss"]
    assert both(filled) >= 0.95


def test_a_small_index_needs_no_file(tmp_path: Path) -> None:
    index = tmp_path / "index"
    with open_index(index, write=True, info=INFO, engine="faiss") as store:
        store.put(EVERY[:100])
        store.finish()
    assert files(index) == [] and both(index) == 1.0
    with open_index(index, write=True) as store:  # it remembers its engine
        store.put(EVERY)
        store.finish()
    assert files(index) == ["vectors-1.faiss"]


def test_what_a_killed_writer_left_is_never_asked(filled: Path) -> None:
    before = both(filled)
    (filled / "vectors-2.faiss").write_bytes(b"half of a file")
    assert both(filled) == before
    with open_index(filled, write=True):
        assert files(filled) == ["vectors-1.faiss"]


def test_a_file_that_is_missing_or_cut_is_said_and_made_again(filled: Path) -> None:
    file = filled / "vectors-1.faiss"
    for content in (file.read_bytes()[:-1], None):
        file.unlink()
        if content:
            file.write_bytes(content)
        with pytest.warns(UserWarning, match="missing or not whole.*index --engine faiss"):
            assert both(filled) == 1.0
    with pytest.warns(UserWarning), open_index(filled, write=True) as store:
        store.finish()
    assert files(filled) == ["vectors-2.faiss"] and both(filled) < 1.0


def test_a_damaged_file_is_refused(filled: Path) -> None:
    file = filled / "vectors-1.faiss"
    file.write_bytes(b"junk" + file.read_bytes()[4:])
    with open_index(filled) as store, pytest.raises(InputError, match="cannot be read.*anew"):
        store.nearest(QUERIES, 1)


def test_an_index_changes_its_engine(filled: Path) -> None:
    with open_index(filled, write=True, engine="exact") as store:
        assert len(store.nearest(QUERIES, 3)) == len(QUERIES)
    assert files(filled) == [] and both(filled) == 1.0
    with pytest.raises(InputError, match="searched exactly: run `index --engine faiss`"):
        open_index(filled, engine="faiss")
    with open_index(filled, write=True, info=INFO, engine="faiss") as store:
        store.finish()
    assert both(filled) < 1.0
    with pytest.raises(InputError, match="in a folder"):
        open_index("postgresql://server/x", engine="faiss")
    with pytest.raises(InputError, match="no engine 'annoy'"):
        open_index(filled, engine="annoy")


def test_faiss_that_is_not_installed(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    for options in ({}, {"write": True}):
        with pytest.raises(InputError, match=r"pip install 'atr-moco-plugin\[faiss\]'"):
            open_index(filled, **options)
    with open_index(filled, engine="exact") as store:
        assert len(store.nearest(QUERIES[:1], 3)[0]) == 3


def test_a_disk_that_is_full(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open_index(filled, write=True) as store:
        store.put(things(400, seed=3, name="new"))
        (filled / "vectors-2.faiss").symlink_to("/dev/full")
        with pytest.raises(InputError, match="cannot be written.*disk has space"):
            store.finish()
    assert both(filled) >= 0.95
    assert files(filled) == ["vectors-1.faiss"]
