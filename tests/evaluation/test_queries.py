"""What each query got, in memory and in its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from atr_moco_plugin.data import Clip, RetrievalSet
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.metrics import RetrievalMetrics, query_metrics, relevance_metrics
from atr_moco_plugin.evaluation.queries import (
    SplitQueries,
    read_queries,
    split_queries,
    write_queries,
)
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
from atr_moco_plugin.evaluation.trec import best_first

OWNER = torch.tensor([0, 0, 1, 2, 2])


def ranked(scores: Tensor, relevant: Tensor) -> RetrievalMetrics:
    metrics = RetrievalMetrics()
    for start in range(0, len(scores), 3):
        metrics.update("a2t", scores[start : start + 3], relevant[start : start + 3])
    for start in range(0, scores.size(1), 4):
        rows = slice(start, start + 4)
        metrics.update("t2a", scores.T[rows], relevant.T[rows])
    return metrics


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0, 0.9), st.integers(0, 2**32))
def test_each_query_matches_sorting_by_hand(
    clips: int, texts: int, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    relevant = torch.rand(clips, texts, generator=generator) < density
    relevant[0, 0] = True
    scores = torch.randint(-3, 4, (clips, texts), generator=generator)  # ties, zero and below
    found = ranked(scores, relevant).queries()
    for way, rows, truth in (("a2t", scores, relevant), ("t2a", scores.T, relevant.T)):
        order = best_first(rows, truth, rows.size(1))
        assert torch.equal(found[way].first, order[:, 0])
        for query, items in enumerate(order.tolist()):
            hits = [bool(truth[query, item]) for item in items]
            expected = hits.index(True) + 1 if any(hits) else 0
            assert int(found[way].rank[query]) == expected
            above = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits[:10]) if hit]
            precision = sum(above) / max(1, min(10, sum(hits)))
            assert float(found[way].precision[query]) == pytest.approx(precision, abs=1e-12)
    assert query_metrics(found) == relevance_metrics(scores, RelevanceMatrix(relevant))


def retrieval_set(owner: Tensor | None = OWNER, word: str = "rain") -> RetrievalSet:
    # A file name that is not UTF-8, as Python reads it.
    clips = [Clip(f"{i} Tür\udce4.wav", ("",), None) for i in range(3)]
    matrix = torch.arange(3)[:, None] == OWNER
    matrix[0, 4] = True
    return RetrievalSet(
        clips,
        [f"{word} {i}" for i in range(5)],
        torch.arange(5),
        owner,
        None if owner is not None else matrix,
    )


def a_split(owner: Tensor | None = OWNER) -> SplitQueries:
    of_set = retrieval_set(owner)
    scores = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    found = ranked(scores, of_set.relevance).queries()
    systems = {way: {"dual": x, "reranked_k64": x, "dual_dup": x} for way, x in found.items()}
    return split_queries("toy valid", of_set, systems)


@pytest.mark.parametrize("owner", [OWNER, None])
def test_a_file_gives_back_what_was_written(tmp_path: Path, owner: Tensor | None) -> None:
    file = tmp_path / "new" / "queries.safetensors"
    written = {"valid": a_split(owner), "odd/name": a_split(owner)}
    write_queries(file, written)
    read = read_queries(file)
    assert list(read) == list(written)
    for name, split in written.items():
        found = read[name]
        for key in ("test_set", "clips", "captions", "digest", "joint"):
            assert getattr(found, key) == getattr(split, key)
        for way in ("a2t", "t2a"):
            assert torch.equal(found.cluster[way], split.cluster[way])
            assert found.systems[way].keys() == split.systems[way].keys()
            for system, figures in split.systems[way].items():
                for ours, theirs in zip(found.systems[way][system], figures, strict=True):
                    assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_captions_belong_to_their_clip_where_they_have_one() -> None:
    by_clip, by_label = a_split(), a_split(None)
    assert by_clip.joint and by_clip.cluster["t2a"].tolist() == OWNER.tolist()
    assert not by_label.joint
    # Wordings with the same clips are drawn together; the last one has two clips.
    first, again, *others = by_label.cluster["t2a"].tolist()
    assert first == again and len({first, *others}) == 4
    assert by_clip.cluster["a2t"].tolist() == by_label.cluster["a2t"].tolist() == [0, 1, 2]


def test_the_digest_tells_sets_apart() -> None:
    sets = [
        retrieval_set(),
        retrieval_set(word="wind"),
        retrieval_set(OWNER.flip(0)),
        retrieval_set(None),
    ]
    digests = [split_queries("same name", x, a_split().systems).digest for x in sets]
    assert len(set(digests)) == len(sets)
    assert split_queries("other", retrieval_set(), a_split().systems).digest == digests[0]


def test_equal_relevance_has_an_equal_digest() -> None:
    by_matrix = replace(
        retrieval_set(), caption_to_audio=None, label_relevance=torch.arange(3)[:, None] == OWNER
    )
    digests = {split_queries("", x, a_split().systems).digest for x in (retrieval_set(), by_matrix)}
    assert len(digests) == 1


def test_a_bad_file_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "queries.safetensors"
    with pytest.raises(InputError, match="is not there"):
        read_queries(file)
    write_queries(file, {"valid": a_split()})
    whole = file.read_bytes()
    for size in (0, 5, 300, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"half-written or damaged: evaluate the run again\.$"):
            read_queries(file)
    metadata = {"queries": '{"version": 2, "splits": {}}'}
    save_file({"x": torch.zeros(1)}, file, metadata)
    with pytest.raises(InputError, match="of version 2, but this package reads version 1"):
        read_queries(file)
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="has no per-query figures: give the queries"):
        read_queries(file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("valid/a2t/dual/rank", torch.zeros(2, dtype=torch.int64), r"rank is torch.int64 \[2\]"),
        ("valid/a2t/dual/rank", torch.zeros(3), "rank is torch.float32"),
        ("valid/t2a/dual/rank", torch.full((5,), 4), "t2a/dual has values out of range"),
        ("valid/t2a/dual/first", torch.full((5,), 3), "t2a/dual has values out of range"),
        ("valid/a2t/dual/precision", torch.full((3,), np.nan).double(), "out of range"),
        ("valid/t2a/cluster", None, "valid/t2a/cluster"),
        ("valid/t2a/dual/first", None, "valid/t2a/dual/first"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, name: str, value: Tensor | None, said: str) -> None:
    from safetensors import safe_open

    file = tmp_path / "queries.safetensors"
    write_queries(file, {"valid": a_split()})
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, file, metadata)
    with pytest.raises(InputError, match=f"is damaged .*{said}.*: evaluate the run again") as found:
        read_queries(file)
    assert "\n" not in str(found.value)
