"""The cosine of mapped vectors ranks as the distance does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import Atc, AtcConfig, MLtm, MLtmConfig, MLtmFull
from atr_moco_plugin.learned_distance import (
    EXTRA,
    LearnedDistance,
    distance_kind,
    learned_factor,
    mean_vectors,
    plain_factor,
    query_vectors,
)


def unit(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def factor(kind: str, d: int, spread: float) -> Tensor:
    """Weights from 1 to ``spread``, or a matrix of such singular values and any directions."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.logspace(0, torch.tensor(spread).log10().item() / 2, d, dtype=torch.float64)
    if kind == "diagonal":
        return weights
    turned, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return weights[:, None] * turned


def exact_squares(a: Tensor, u: Tensor, of: Tensor) -> Tensor:
    """D^2 in float64, from the differences themselves."""
    difference = a[:, None] - u[None]
    mapped = difference * of if of.dim() == 1 else difference @ of.T
    return mapped.square().sum(dim=2)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e6])
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_cosine_is_minus_the_square_over_its_largest(kind, spread) -> None:
    of = factor(kind, 16, spread)
    a, u = unit(30, 16, 0), unit(40, 16, 1)
    x, y = LearnedDistance(of, "audio")(a), LearnedDistance(of, "text")(u)

    assert x.shape == (30, 16 + EXTRA) and x.dtype == torch.float32
    for vectors in (x, y):
        assert_close(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-6, rtol=0)
    largest = 4 * torch.linalg.matrix_norm(of.diag() if of.dim() == 1 else of, 2) ** 2
    expected = -exact_squares(a, u, of) / largest
    assert_close((x @ y.T).double(), expected, atol=2e-7, rtol=0)
    # The farthest that two unit vectors can be.
    if kind == "diagonal":
        end = torch.eye(16, dtype=torch.float64)[-1:]
        farthest = LearnedDistance(of, "audio")(end) @ LearnedDistance(of, "text")(-end).T
        assert_close(farthest, torch.tensor([[-1.0]]))
        same = LearnedDistance(of, "audio")(end) @ LearnedDistance(of, "text")(end).T
        assert_close(same, torch.tensor([[0.0]]), atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_both_directions_are_ranked_as_the_distance_ranks_them(kind) -> None:
    """Pairs that float64 tells apart by less than float32 can are all that may change places."""
    of = factor(kind, 64, 30.0)
    a = unit(200, 64, 0)
    u = F.normalize(a + 0.4 * unit(200, 64, 1), dim=1)  # as of a trained model
    cosines = (LearnedDistance(of, "audio")(a) @ LearnedDistance(of, "text")(u).T).double()
    squares = exact_squares(a, u, of)
    close = 4e-7 * 4 * 30
    for found, wanted in ((cosines, squares), (cosines.T, squares.T)):
        in_order = wanted.gather(1, found.argsort(dim=1, descending=True))
        assert (in_order.diff(dim=1) > -close).all()
        assert (found.argmax(dim=1) == wanted.argmin(dim=1)).all()


def test_equal_weights_rank_as_the_cosine_and_in_half_precision() -> None:
    a, u = unit(50, 8, 0), unit(60, 8, 1)
    for kind in ("diagonal", "full"):
        of = plain_factor(kind, 8)
        assert distance_kind(of) == kind
        layers = [LearnedDistance(3 * of, side).bfloat16() for side in ("audio", "text")]
        with torch.autocast("cpu", torch.bfloat16):
            x, y = (layer(v) for layer, v in zip(layers, (a.float(), u.float()), strict=True))
        assert_close((x @ y.T).double(), (a @ u.T - 1) / 2, atol=2e-7, rtol=0)


def test_the_factor_of_a_criterion() -> None:
    assert learned_factor(Atc(LinearModel(), AtcConfig())) is None
    for kind, shape in ((MLtm, (4,)), (MLtmFull, (4, 4))):
        found = learned_factor(kind(LinearModel(), MLtmConfig()))
        assert found.shape == shape and not found.requires_grad
        assert_close(found, plain_factor(distance_kind(found), 4))


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_means_and_sounds_as_queries_keep_the_distance(kind: str) -> None:
    of = factor(kind, 16, 100.0)
    a, u = unit(12, 16, 0), unit(9, 16, 1)
    audio, text = LearnedDistance(of, "audio"), LearnedDistance(of, "text")
    scale = -1 / (4 * torch.linalg.matrix_norm(of if of.dim() == 2 else of.diag(), 2) ** 2)
    windows, words = audio(a).view(4, 3, -1), text(u).view(3, 3, -1)
    clips, labels = mean_vectors(windows.sum(1)), mean_vectors(words.sum(1))
    for x in (clips, labels):
        assert_close(x.norm(dim=1), torch.ones(len(x)))
    squares = exact_squares(a, u, of) * scale
    assert_close((clips @ text(u).T).double(), squares.view(4, 3, 9).mean(1), atol=3e-7, rtol=0)
    assert_close((audio(a) @ labels.T).double(), squares.view(12, 3, 3).mean(2), atol=3e-7, rtol=0)
    assert_close(mean_vectors(3 * audio(a)), audio(a))  # of one thing it is that thing

    sounds = exact_squares(a, a, of) * scale
    found = (query_vectors(audio(a)) @ audio(a).T).double()
    assert_close(found, sounds, atol=3e-7, rtol=0)
    found = (query_vectors(clips) @ audio(a).T).double()
    assert_close(found, sounds.view(4, 3, 12).mean(1), atol=3e-7, rtol=0)
    assert torch.equal(query_vectors(text(u)), text(u))
    assert torch.equal(query_vectors(labels), labels)
