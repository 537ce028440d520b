"""Intervals of the figures of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.data import Clip, RetrievalSet
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.intervals import split_intervals, system_intervals
from atr_moco_plugin.evaluation.queries import QueryFigures, SplitQueries, split_queries
from atr_moco_plugin.evaluation.relevance import relevances
from atr_moco_plugin.evaluation.rerank import Candidates, top_candidates
from atr_moco_plugin.evaluation.retrieval import rank_queries, system_figures

CLIPS, EACH = 40, 3


def retrieval_set(labels: bool) -> RetrievalSet:
    clips = [Clip(f"{i}.wav", ("",), None) for i in range(CLIPS)]
    captions = [f"{i // 2}" for i in range(CLIPS * EACH)]
    owner = torch.arange(CLIPS * EACH) % CLIPS
    ids = torch.arange(CLIPS * EACH) // 2  # two clips share each text
    matrix = torch.arange(CLIPS)[:, None] % 4 == torch.arange(CLIPS * EACH) % 4
    if labels:
        return RetrievalSet(clips, captions, ids, None, matrix)
    return RetrievalSet(clips, captions, ids, owner)


def measured(labels: bool = False) -> tuple[dict, SplitQueries]:
    """Figures of an untrained model that re-ranks, and what each query got."""
    generator = torch.Generator().manual_seed(1)
    of_set = retrieval_set(labels)
    center = torch.randn(CLIPS, 8, generator=generator)
    near = center[torch.arange(CLIPS * EACH) % CLIPS]
    near = near + 2 * torch.randn(near.shape, generator=generator)
    encoded = []
    for x in (center, near):
        encoded.append(Encoded())
        encoded[-1].add(torch.nn.functional.normalize(x, dim=1), None)
    cosines = Cosines(*encoded)
    candidates = {}
    for way in ("a2t", "t2a"):
        items = torch.cat([top_candidates(block, 6) for _, block in cosines.blocks(way)])
        logits = torch.randn(*items.shape, 2, generator=generator)
        candidates[way] = Candidates(items, logits)
    relevance = relevances(of_set, torch.device("cpu"))
    systems = rank_queries(cosines, relevance, candidates=candidates, rerank_k=[6, 2])
    queries = split_queries("made up", of_set, systems)
    return system_figures(systems, relevance, [6, 2]), queries


@pytest.mark.parametrize("labels", [False, True])
def test_every_figure_lies_in_its_interval(labels: bool) -> None:
    figures, queries = measured(labels)
    intervals = split_intervals(queries, [6, 2])
    assert intervals["clusters"] == ({"a2t": 40, "t2a": 4} if labels else 40)
    pairs = [(figures[name], intervals[name]) for name in ("dual", "reranked", "reranked_albef")]
    pairs += [(figures["rerank"][k]["reranked"], intervals["rerank"][k]["reranked"]) for k in "26"]
    for of_system, ends in pairs:
        counted = {x for x in of_system if x in ("clips", "captions") or "skipped" in x}
        assert ends.keys() == of_system.keys() - counted
        for name, (low, high) in ends.items():
            assert low <= of_system[name] <= high and low >= 0
            assert low < high or "medr" in name
    assert intervals["reranked"] == intervals["rerank"]["6"]["reranked"]
    assert ("a2t_precision1" in intervals["dual"]) == labels == ("r_sum_dup" not in figures["dual"])


def test_the_seed_decides() -> None:
    _, queries = measured()
    one, again = (system_intervals(queries, replicates=100) for _ in range(2))
    other = system_intervals(queries, replicates=100, seed=1)
    assert one == again and one != other
    wide = system_intervals(queries, replicates=100, level=0.99)
    for system, ends in one.items():
        for name, (low, high) in ends.items():
            assert wide[system][name][0] <= low and wide[system][name][1] >= high
    for options, said in (({"level": 95}, "got 95"), ({"replicates": 1}, "two replicates or more")):
        with pytest.raises(ValueError, match=said):
            system_intervals(queries, **options)


def test_the_sum_draws_the_same_clips_for_both_directions() -> None:
    """Where clip and caption succeed together the sum is twice as unsure as one direction."""
    n = 400
    hits = torch.rand(n, generator=torch.Generator().manual_seed(0)) < 0.5
    same = QueryFigures(torch.where(hits, 1, 11), hits.double(), torch.zeros(n, dtype=torch.int64))
    both = {way: {"dual": same} for way in ("a2t", "t2a")}
    cluster = {way: torch.arange(n) for way in ("a2t", "t2a")}
    joint = SplitQueries("", ("",) * n, ("",) * n, "", True, cluster, both)
    ends = {j: system_intervals(replace(joint, joint=j))["dual"] for j in (True, False)}

    def width(j: bool, name: str) -> float:
        return ends[j][name][1] - ends[j][name][0]

    assert width(True, "r_sum") == pytest.approx(6 * width(True, "a2t_r1"), rel=0.05)
    assert width(False, "r_sum") == pytest.approx(6 * width(False, "a2t_r1") / 2**0.5, rel=0.06)


def test_skipped_clips_are_no_evidence() -> None:
    _, queries = measured()
    more = 1_000
    missing = QueryFigures(*(torch.zeros(more).to(x.dtype) for x in queries.systems["a2t"]["dual"]))
    a2t = {
        name: QueryFigures(*(torch.cat(x) for x in zip(of, missing, strict=True)))
        for name, of in queries.systems["a2t"].items()
    }
    padded = replace(
        queries,
        systems={**queries.systems, "a2t": a2t},
        cluster={**queries.cluster, "a2t": torch.arange(CLIPS + more)},
    )
    assert system_intervals(padded) == system_intervals(queries)


def test_a_single_text_has_no_interval() -> None:
    """It says nothing of others, and so does the sum; the clips still say theirs."""
    queries = measured(labels=True)[1]
    systems = {
        "a2t": {"dual": queries.systems["a2t"]["dual"]},
        "t2a": {"dual": QueryFigures(*(x[:1] for x in queries.systems["t2a"]["dual"]))},
    }
    one = replace(
        queries, systems=systems, cluster={**queries.cluster, "t2a": queries.cluster["t2a"][:1]}
    )
    found = split_intervals(one)
    expected = {f"a2t_{x}" for x in ("r1", "r5", "r10", "map10", "medr", "precision1")}
    assert found["dual"].keys() == expected and found["clusters"] == {"a2t": 40, "t2a": 1}


def of_population(clips: int, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ranks of captions, those of one clip alike, with P(rank <= 5) = 0.5."""
    of_clip = torch.randn(clips, 1, generator=generator).expand(clips, each).reshape(-1)
    own = torch.randn(clips * each, generator=generator)
    ranks = (5 * (1.5 * (of_clip + own) / math.sqrt(2)).exp()).ceil().long().clamp_min(1)
    return ranks, torch.arange(clips * each) // each


def test_intervals_hold_the_truth_where_captions_depend_on_their_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    held = alone = 0
    for _ in range(200):
        ranks, owner = of_population(100, 5, generator)
        of = QueryFigures(ranks, (ranks <= 10) / ranks.double(), torch.zeros_like(ranks))
        first = torch.arange(0, 500, 5)
        a2t = QueryFigures(*(x[first] for x in of))
        systems = {"a2t": {"dual": a2t}, "t2a": {"dual": of}}
        cluster = {"a2t": torch.arange(100), "t2a": owner}
        queries = SplitQueries("", ("",) * 100, ("",) * 500, "", True, cluster, systems)
        low, high = system_intervals(queries, replicates=200)["dual"]["t2a_r5"]
        held += low <= 50 <= high
        single = replace(queries, cluster={"a2t": torch.arange(100), "t2a": torch.arange(500)})
        low, high = system_intervals(replace(single, joint=False), replicates=200)["dual"]["t2a_r5"]
        alone += low <= 50 <= high
    assert 182 <= held <= 198  # of 200, 190 expected
    assert alone < 175  # captions taken for independent are too sure of themselves
