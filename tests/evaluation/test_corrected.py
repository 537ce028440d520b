"""Parameters are chosen on one split alone, and the figures are those of the corrected scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.evaluation import metrics, retrieval_metrics
from atr_moco_plugin.evaluation.corrected import choose, correct, summary
from atr_moco_plugin.evaluation.corrections import nnn_offsets
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.hubness import hubness, top_counts
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.evaluation.rescoring import TITLES, Pair, tried

NAMES = list(TITLES)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pair(clips: int, seed: int) -> tuple[Pair, Tensor]:
    """Clips with two captions each, in a cone, so that there are hubs; the clip of each caption."""
    owner = torch.arange(clips).repeat_interleave(2)
    cone = 2 * _normal(1, 16, seed=99)
    own = _normal(clips, 16, seed=seed)
    sides = own + _normal(clips, 16, seed=seed + 1), own[owner] + _normal(len(owner), 16, seed=seed)
    encoded = []
    for side in sides:
        one = Encoded()
        one.add(torch.nn.functional.normalize(side + cone, dim=1), None)
        encoded.append(one)
    return Pair(*encoded), owner


BANK, VALID, TEST = _pair(200, 0), _pair(40, 10), _pair(50, 20)


def _relevance(pair: tuple[Pair, Tensor]) -> CaptionRelevance:
    return CaptionRelevance(pair[1], len(pair[0].audio.embeddings))


def _cosines(pair: Pair) -> Tensor:
    return (pair.audio.embeddings.double() @ pair.text.embeddings.double().T).float().double()


def _corrected(pair: Pair, parameters: dict[str, float]) -> Tensor:
    bank = BANK[0].text.embeddings
    offsets = nnn_offsets(bank, pair.audio.embeddings, int(parameters["k"]))
    return _cosines(pair) - parameters["alpha"] * offsets[:, None]


def test_the_best_of_the_grid_is_chosen() -> None:
    chosen = choose(["nnn"], BANK[0], VALID[0], _relevance(VALID))["nnn"]["t2a"]
    figures = [
        retrieval_metrics(_corrected(VALID[0], parameters), VALID[1])["t2a_map10"]
        for parameters in tried("nnn", len(BANK[0].text.embeddings))
    ]
    assert chosen.figure == pytest.approx(max(figures))
    grid = tried("nnn", len(BANK[0].text.embeddings))
    assert chosen.parameters == grid[figures.index(max(figures))]
    plain = retrieval_metrics(_cosines(VALID[0]), VALID[1])["t2a_map10"]
    assert chosen.plain == pytest.approx(plain)
    assert chosen.figure > plain  # there are hubs


def test_figures_are_those_of_the_corrected_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = choose(NAMES, BANK[0], VALID[0], _relevance(VALID))
    relevances = {"": _relevance(TEST)}
    whole = correct(choices, BANK[0], TEST[0], relevances)
    scores = _corrected(TEST[0], choices["nnn"]["t2a"].parameters)
    expected = retrieval_metrics(scores, TEST[1])
    for key in ("t2a_r1", "t2a_r5", "t2a_map10", "t2a_medr"):
        assert whole.figures["nnn"][key] == pytest.approx(expected[key])
    assert whole.hubness["nnn"]["t2a"] == hubness(top_counts(scores.T))
    assert whole.systems["t2a"]["nnn"].rank.shape == (100,)
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", 300)  # blocks of a few queries
    assert correct(choices, BANK[0], TEST[0], relevances).figures == whole.figures


def test_the_evaluated_split_chooses_nothing() -> None:
    """Without the other queries, a query keeps its rank under every inductive correction."""
    choices = choose(NAMES, BANK[0], VALID[0], _relevance(VALID))
    half = Encoded()
    half.add(TEST[0].text.embeddings[:40], None)
    fewer = Pair(TEST[0].audio, half)
    owner = TEST[1][:40]
    every = correct(choices, BANK[0], TEST[0], {"": _relevance(TEST)})
    some = correct(choices, BANK[0], fewer, {"": CaptionRelevance(owner, 50)})
    for name in ("nnn", "inverted_softmax", "qb_norm", "csls"):
        found, before = some.systems["t2a"][name].rank, every.systems["t2a"][name].rank
        assert torch.equal(found, before[:40]), name
    # A transductive one uses the queries that are gone.
    before = every.systems["t2a"]["sinkhorn"].rank
    assert not torch.equal(some.systems["t2a"]["sinkhorn"].rank, before[:40])


def test_inductive_and_transductive_figures_are_apart() -> None:
    choices = choose(NAMES, BANK[0], VALID[0], _relevance(VALID))
    found = summary(choices, correct(choices, BANK[0], TEST[0], {"": _relevance(TEST)}))
    assert list(found["inductive"]) == ["nnn", "inverted_softmax", "qb_norm", "csls"]
    assert list(found["transductive"]) == ["sinkhorn", "dual_softmax", "csls_test"]
    assert found["chosen"]["nnn"]["a2t"].keys() == {
        "k", "alpha", "valid_map10", "valid_map10_plain"
    }  # fmt: skip


def test_a_k_that_a_smaller_split_bounds_is_named_as_it_is_used() -> None:
    valid = _pair(600, 10)
    choices = choose(["csls_test"], None, valid[0], _relevance(valid))
    chosen = choices["csls_test"]["a2t"]
    choices["csls_test"]["a2t"] = chosen._replace(parameters={"k": 50})
    found = summary(choices, correct(choices, None, TEST[0], {"": _relevance(TEST)}))
    assert found["chosen"]["csls_test"]["a2t"]["k"] == 5  # a tenth of 50 clips
    assert found["chosen"]["csls_test"]["a2t"]["chosen_k"] == 50


def test_a_bank_is_needed_by_inductive_ones_alone() -> None:
    choose(["sinkhorn"], None, VALID[0], _relevance(VALID))
    with pytest.raises(ValueError, match="nnn is made of a bank, and none was given"):
        choose(["nnn"], None, VALID[0], _relevance(VALID))
