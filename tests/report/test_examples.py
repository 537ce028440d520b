"""Which retrievals a report shows, against a slow and obvious choice."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import relevance_metrics
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
from atr_moco_plugin.report import Examples, collect_examples
from atr_moco_plugin.report.examples import Direction


def load(clip: Clip) -> np.ndarray:
    if "broken" in clip.key:
        raise InputError(f"{clip.key}: not readable\nas audio")
    return np.zeros(3_200, "f4")


def by_clip(captions: list[int]) -> RetrievalSet:
    clips = [
        Clip(f"clip{i}", tuple(f"text {i} {j}" for j in range(n)), None)
        for i, n in enumerate(captions)
    ]
    return AudioTextDataset("d", {"valid": clips}).retrieval_set("valid")


def by_label(labels: list[str]) -> RetrievalSet:
    clips = [
        Clip(f"clip{i}", (f"a {name}", f"the {name}"), None, label=name, caption_group=name)
        for i, name in enumerate(labels)
    ]
    return AudioTextDataset("d", {"valid": clips}, relevance_mode="label").retrieval_set("valid")


def brute_force(scores: list[list[float]], relevant: list[list[bool]], groups: list, n: int):
    """(query, rank, margin) of the best and of the worst n groups; rows are queries."""
    judged = []
    for q, (row, hits) in enumerate(zip(scores, relevant, strict=True)):
        good = [s for s, hit in zip(row, hits, strict=True) if hit]
        bad = [s for s, hit in zip(row, hits, strict=True) if not hit]
        if good and bad:
            rank = 1 + sum(s >= max(good) for s in bad)
            judged.append((rank, -(max(good) - max(bad)), q))
    judged.sort()

    def take(order, banned):
        chosen = []
        for rank, margin, q in order:
            if groups[q] not in banned and len(chosen) < n:
                banned = banned | {groups[q]}
                chosen.append((q, rank, round(-margin, 4)))
        return chosen

    best = take(judged, set())
    return best, take(judged[::-1], {groups[q] for q, _, _ in best})


def flat(side) -> list[tuple]:
    return [(r.query, r.rank, r.margin) for r in side]


def check(scores: torch.Tensor, retrieval_set: RetrievalSet, per_side: int) -> None:
    examples = collect_examples(scores, retrieval_set, load, 16_000, per_side=per_side, top=2)
    keys = [clip.key for clip in retrieval_set.clips]
    shown_clip = [keys.index(sound.key) for sound in examples.sounds]
    # Captions may have equal texts, so they are told apart by the order of their scores only.
    matrix = retrieval_set.relevance
    owner = retrieval_set.caption_to_audio
    caption_groups = (retrieval_set.caption_ids if owner is None else owner).tolist()
    clip_groups = [clip.label or clip.key for clip in retrieval_set.clips]

    best, worst = brute_force(scores.tolist(), matrix.tolist(), clip_groups, per_side)
    way = examples.audio_to_text
    assert [(shown_clip[q], *rest) for q, *rest in flat(way.best)] == best
    assert [(shown_clip[q], *rest) for q, *rest in flat(way.worst)] == worst

    best, worst = brute_force(scores.T.tolist(), matrix.T.tolist(), caption_groups, per_side)
    way = examples.text_to_audio
    for side, expected in ((way.best, best), (way.worst, worst)):
        texts = [(examples.captions[q], *rest) for q, *rest in flat(side)]
        assert texts == [(retrieval_set.captions[q], *rest) for q, *rest in expected]
    check_found(examples.text_to_audio, len(keys))
    check_found(examples.audio_to_text, len(retrieval_set.captions))


def check_found(direction: Direction, items: int) -> None:
    for retrieval in (*direction.best, *direction.worst):
        found = retrieval.found
        places = [item.place for item in found]
        assert places == sorted(set(places)) and places[: min(2, items)] == [1, 2][:items]
        hits = [item for item in found if item.relevant]
        assert hits[0].place == retrieval.rank and retrieval.candidates == items
        assert len(found) <= 3 and (retrieval.rank <= 2) == (len(found) == min(2, items))
        assert all(a.score >= b.score for a, b in zip(found, found[1:], strict=False))


@settings(max_examples=60, deadline=None)
@given(
    captions=st.lists(st.integers(1, 4), min_size=2, max_size=6),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([2, 3, 1000]),
    per_side=st.integers(1, 4),
)
def test_clip_relevance_agrees_with_brute_force(captions, seed, levels, per_side) -> None:
    retrieval_set = by_clip(captions)
    rng = np.random.default_rng(seed)
    # Few levels make many ties.
    scores = rng.integers(-levels, levels, retrieval_set.relevance.shape) / 1000
    check(torch.from_numpy(scores), retrieval_set, per_side)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=9),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([2, 1000]),
    per_side=st.integers(1, 3),
)
def test_label_relevance_agrees_with_brute_force(labels, seed, levels, per_side) -> None:
    retrieval_set = by_label(labels)
    assert retrieval_set.caption_to_audio is None
    rng = np.random.default_rng(seed)
    scores = rng.integers(-levels, levels, retrieval_set.relevance.shape) / 1000
    check(torch.from_numpy(scores), retrieval_set, per_side)


def test_ranks_are_those_of_the_metrics() -> None:
    retrieval_set = by_clip([1] * 18)
    scores = torch.randn(18, 18, generator=torch.Generator().manual_seed(1))
    way = collect_examples(scores, retrieval_set, load, 16_000, per_side=9).text_to_audio
    ranks = [r.rank for r in (*way.best, *way.worst)]
    metrics = relevance_metrics(scores, RelevanceMatrix(retrieval_set.relevance))
    assert len(ranks) == 18
    assert 100 * np.mean([rank <= 5 for rank in ranks]) == pytest.approx(metrics["t2a_r5"])
    assert np.median(ranks) == metrics["t2a_medr"]


def test_the_matrix_has_one_caption_of_each_clip_in_order() -> None:
    retrieval_set = by_label(list("cabbcaab"))
    scores = torch.arange(8 * 6, dtype=torch.float32).reshape(8, 6) / 100
    matrix = collect_examples(scores, retrieval_set, load, 16_000).matrix
    # By label, then in the order of the split; one caption a label.
    assert matrix.rows == ("clip1", "clip5", "clip6", "clip2", "clip3", "clip7", "clip0", "clip4")
    assert matrix.columns == ("a a", "a b", "a c")
    assert np.array(matrix.relevant).sum(axis=0).tolist() == [3, 3, 2]
    row, column = matrix.rows.index("clip6"), retrieval_set.captions.index("a b")
    assert matrix.values[row][1] == pytest.approx(scores[6, column].item())


def test_the_sample_is_seeded_and_bounded() -> None:
    retrieval_set = by_clip([1] * 30)
    scores = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    samples = [
        collect_examples(scores, retrieval_set, load, 16_000, matrix_size=7, seed=seed).matrix
        for seed in (0, 0, 1)
    ]
    assert samples[0] == samples[1] != samples[2]
    numbers = [int(key.removeprefix("clip")) for key in samples[0].rows]
    assert len(numbers) == 7 and numbers == sorted(numbers)
    assert np.array(samples[0].relevant).tolist() == np.eye(7, dtype=bool).tolist()


def test_an_unreadable_clip_is_said_and_the_others_stay() -> None:
    clips = [Clip(f"{'broken' if i == 1 else 'good'}{i}", (f"text {i}",), None) for i in range(3)]
    retrieval_set = AudioTextDataset("d", {"valid": clips}).retrieval_set("valid")
    sounds = {s.key: s for s in collect_examples(torch.eye(3), retrieval_set, load, 16_000).sounds}
    assert sounds["broken1"].uri is None
    assert sounds["broken1"].note == "no sound: broken1: not readable as audio"
    assert sounds["good0"].uri.startswith("data:audio/") and sounds["good0"].note is None


def test_long_clips_are_cut() -> None:
    retrieval_set = by_clip([1, 1])

    def noise(clip: Clip) -> np.ndarray:
        return np.random.default_rng(0).uniform(-1, 1, 64_000).astype("f4")

    whole = collect_examples(torch.eye(2), retrieval_set, noise, 16_000, max_seconds=4).sounds[0]
    cut = collect_examples(torch.eye(2), retrieval_set, noise, 16_000, max_seconds=1).sounds[0]
    assert whole.note is None and cut.note == "the first 1 s of 4.0 s"
    assert len(cut.uri) < 0.5 * len(whole.uri)


def test_examples_come_back_from_their_file(tmp_path: Path) -> None:
    retrieval_set = by_label(list("abcab"))
    scores = torch.randn(*retrieval_set.relevance.shape, generator=torch.Generator().manual_seed(0))
    examples = collect_examples(scores, retrieval_set, load, 16_000, split="test")
    path = examples.save(tmp_path)
    assert path == tmp_path / "report" / "examples.json"
    values = json.loads(path.read_text())
    assert Examples.from_dict(values) == examples and values["split"] == "test"
    for broken in ({}, {**values, "sounds": 3}, {**values, "matrix": {"rows": []}}):
        with pytest.raises(ValueError, match="not the examples of a report"):
            Examples.from_dict(broken)


def test_wrong_scores_are_refused() -> None:
    retrieval_set = by_clip([2, 1])
    with pytest.raises(ValueError, match=r"similarity \[2, 2\] and relevance \[2, 3\]"):
        collect_examples(torch.zeros(2, 2), retrieval_set, load, 16_000)
    with pytest.raises(ValueError, match="not finite"):
        collect_examples(torch.full((2, 3), math.nan), retrieval_set, load, 16_000)
