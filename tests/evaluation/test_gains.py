from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.evaluation.gains import gains
from atr_moco_plugin.evaluation.queries import QueryFigures, SplitQueries


def _figures(rank: Tensor) -> QueryFigures:
    precision = torch.where(rank > 0, 1.0 / rank.clamp_min(1), 0.0).double()
    return QueryFigures(rank, precision, torch.zeros_like(rank))


def _queries(ranks: dict[str, Tensor], cluster: Tensor) -> SplitQueries:
    by_name = {name: _figures(rank) for name, rank in ranks.items()}
    clips = int(cluster.max()) + 1
    return SplitQueries(
        test_set="made up",
        clips=tuple(map(str, range(clips))),
        captions=tuple(map(str, range(len(cluster)))),
        digest="",
        joint=True,
        cluster={"a2t": cluster, "t2a": cluster},
        systems={"a2t": by_name, "t2a": by_name},
    )


def _ranks(queries: int, hits: float, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(queries, generator=generator) < hits, 1, 20)


def test_a_gain_is_the_difference_of_the_figures() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = _ranks(300, 0.5, generator), _ranks(300, 0.6, generator)
    found = gains(_queries({"dual": before, "nnn": after}, torch.arange(300)), ["nnn"])["nnn"]
    expected = 100 * float((after == 1).double().mean() - (before == 1).double().mean())
    gain, low, high = found["a2t_r1"]
    assert gain == pytest.approx(expected, abs=1e-4) and low < gain < high
    # The standard error of a mean of independent differences.
    spread = 100 * float(((after == 1).double() - (before == 1).double()).std()) / 300**0.5
    assert (high - low) / 2 == pytest.approx(1.968 * spread, rel=0.06)


def test_what_both_have_in_common_does_not_widen_it() -> None:
    generator = torch.Generator().manual_seed(0)
    before = _ranks(400, 0.5, generator)
    after = before.clone()
    after[(before > 1).nonzero().flatten()[:8]] = 1  # two points more, the rest as it was
    gain, low, high = gains(_queries({"dual": before, "nnn": after}, torch.arange(400)), ["nnn"])[
        "nnn"
    ]["t2a_r1"]
    assert gain == 2.0 and low > 0 and high - low < 3.0  # the figure's own interval has 10 points


def test_captions_of_a_clip_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(0)
    of_clip = torch.where(torch.rand(60, generator=generator) < 0.5, 1, 20)
    cluster = torch.arange(60).repeat_interleave(5)
    queries = {"dual": torch.full((300,), 20), "nnn": of_clip[cluster]}
    together = gains(_queries(queries, cluster), ["nnn"])["nnn"]["t2a_r1"]
    apart = gains(_queries(queries, torch.arange(300)), ["nnn"])["nnn"]["t2a_r1"]
    ratio = (together[2] - together[1]) / (apart[2] - apart[1])
    assert ratio == pytest.approx(5**0.5, rel=0.1)


def test_the_same_rankings_gain_nothing() -> None:
    ranks = torch.tensor([1, 2, 0, 30])
    found = gains(_queries({"dual": ranks, "nnn": ranks}, torch.arange(4)), ["nnn"])["nnn"]
    assert set(map(tuple, found.values())) == {(0.0, 0.0, 0.0)}
    assert len(found) == 8


def test_a_single_clip_says_nothing_of_others() -> None:
    queries = _queries(
        {"dual": torch.tensor([1, 2]), "nnn": torch.tensor([1, 1])}, torch.zeros(2).long()
    )
    assert gains(queries, ["nnn"]) == {"nnn": {}}


def test_no_gain_is_larger_than_all_queries() -> None:
    ranks = {"dual": torch.tensor([1, 20]), "nnn": torch.tensor([1, 1])}
    found = gains(_queries(ranks, torch.arange(2)), ["nnn"])["nnn"]
    assert found["a2t_r1"] == [50.0, -100.0, 100.0]
