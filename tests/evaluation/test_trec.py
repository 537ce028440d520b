from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.evaluation.metrics import relevance_metrics
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.evaluation.trec import (
    RunFiles,
    best_first,
    caption_ids,
    clip_key,
    trec_id,
    write_qrels,
)

KEYS = ["birds & rain, 'far' (2).wav", "a#1", "a", "Tür\u2028 \t\udce4", '"100%25"', "-x_Y~.0"]
OWNER = torch.tensor([3, 0, 0, 1, 2, 2, 2, 4, 5, 0])


def read_run(path: Path) -> dict[str, list[tuple[str, int, float]]]:
    """Query to (item, rank, score), in the order of the file."""
    found: dict[str, list[tuple[str, int, float]]] = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        query, q0, item, rank, score, _ = line.split()
        assert q0 == "Q0"
        found.setdefault(query, []).append((item, int(rank), float(score)))
    return found


def read_qrels(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        query, zero, item, relevance = line.split()
        assert (zero, relevance) == ("0", "1")
        found.setdefault(query, set()).add(item)
    return found


def recall(
    run: dict[str, list[tuple[str, int, float]]], qrels: dict[str, set[str]], k: int
) -> float:
    """Hit rate as an outside tool finds it: sorted by score, equal scores by id backwards."""
    hits = 0
    for query, relevant in qrels.items():
        listed = sorted(run[query], key=lambda line: (line[2], line[0]), reverse=True)
        hits += any(item in relevant for item, _, _ in listed[:k])
    return 100 * hits / len(qrels)


@settings(max_examples=40)
@given(st.text())
def test_ids_have_no_white_space_and_can_be_undone(key: str) -> None:
    identifier = trec_id(key.encode("utf-8", "replace").decode())
    assert len(identifier.split()) <= 1 and "#" not in identifier and identifier.isascii()
    assert clip_key(identifier) == key.encode("utf-8", "replace").decode()
    assert clip_key(f"{identifier}#12") == clip_key(identifier)


def test_captions_are_numbered_within_their_clip() -> None:
    ids = caption_ids(KEYS, OWNER, len(OWNER))
    assert ids[4:7] == ["a#0", "a#1", "a#2"] and ids[9].endswith("wav#2")
    assert len(set(ids)) == len(OWNER)
    assert [clip_key(x) for x in ids] == [KEYS[i] for i in OWNER.tolist()]
    assert caption_ids(KEYS, None, 3) == ["#0", "#1", "#2"]


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_files_hold_the_ranking_that_the_metrics_see(tmp_path: Path, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    shape = (len(KEYS), len(OWNER))
    scores = torch.randint(-levels, levels, shape, generator=generator) / levels
    relevance = CaptionRelevance(OWNER, len(KEYS))
    clips, captions = [trec_id(x) for x in KEYS], caption_ids(KEYS, OWNER, len(OWNER))
    relevant = relevance.block("a2t", 0, len(KEYS))
    with RunFiles(tmp_path / "trec", clips, captions, depth=7) as write:
        for start in range(0, len(KEYS), 4):  # in blocks, as they come
            rows = slice(start, start + 4)
            write("a2t", "dual", start, scores[rows], relevant[rows])
        write("t2a", "dual", 0, scores.T, relevant.T)
    write_qrels(tmp_path / "trec", relevance, clips, captions)

    expected = relevance_metrics(scores, relevance)
    for way, items in (("a2t", len(captions)), ("t2a", len(clips))):
        run = read_run(tmp_path / "trec" / f"{way}_dual.run")
        qrels = read_qrels(tmp_path / "trec" / f"{way}.qrels")
        for k in (1, 5):
            assert recall(run, qrels, k) == pytest.approx(expected[f"{way}_r{k}"])
        for lines in run.values():
            assert [rank for _, rank, _ in lines] == list(range(1, min(7, items) + 1))
            assert all(x[2] > y[2] for x, y in zip(lines, lines[1:], strict=False))
            assert len({item for item, _, _ in lines}) == len(lines)
    assert read_qrels(tmp_path / "trec" / "a2t.qrels")["a"] == {"a#0", "a#1", "a#2"}


def test_of_equal_scores_the_relevant_item_is_last() -> None:
    scores: Tensor = torch.tensor([[0.5, 0.5, 0.9, 0.5]])
    relevant = torch.tensor([[True, False, False, False]])
    assert best_first(scores, relevant, 4).tolist() == [[2, 1, 3, 0]]
    assert best_first(scores, relevant, 2).tolist() == [[2, 1]]
