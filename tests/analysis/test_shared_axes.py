from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import PairedRows
from atr_moco_plugin.analysis.shared_axes import (
    SHUFFLES,
    cross_covariance,
    doubling,
    project,
    recall_by_axes,
    shared_axes,
    shuffled_values,
)


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def row_by_row(audio: Tensor, text: Tensor) -> PairedRows:
    return PairedRows(audio, text, torch.arange(len(audio))[:, None].expand(-1, 2))


@pytest.mark.parametrize(("rows", "d", "e"), [(30, 5, 5), (30, 7, 4), (6, 9, 8), (2, 3, 2)])
def test_the_cross_covariance_is_numpys(rows: int, d: int, e: int) -> None:
    audio, text = gaussian(rows, d) + 2, gaussian(rows, e, seed=1) - 1
    expected = np.cov(audio.T, text.T, ddof=0)[:d, d:]
    axes = shared_axes(row_by_row(audio, text))
    assert np.abs(cross_covariance(row_by_row(audio, text)).numpy() - expected).max() < 1e-12
    again = axes.audio * axes.values @ axes.text.T
    assert np.abs(again.numpy() - expected).max() < 1e-12
    assert np.abs(axes.values.numpy() - np.linalg.svd(expected)[1]).max() < 1e-12


def test_several_partners_of_a_row_are_several_pairs() -> None:
    audio, text = gaussian(4, 3), gaussian(6, 3, seed=1)
    owner = torch.tensor([0, 0, 1, 2, 3, 3])
    many = PairedRows(audio, text, torch.stack([owner, torch.arange(6)], dim=1))
    expected = np.cov(audio[owner].T, text.T, ddof=0)[:3, 3:]
    assert np.abs(cross_covariance(many).numpy() - expected).max() < 1e-12


def test_only_what_is_shared_stands_above_shuffled_pairs() -> None:
    # Three directions of ten are the same on both sides.
    common = gaussian(2000, 3)
    audio = torch.cat([common, gaussian(2000, 7, seed=1)], dim=1) @ gaussian(10, 10, seed=3)
    text = torch.cat([common, gaussian(2000, 5, seed=2)], dim=1) @ gaussian(8, 8, seed=4)
    rows = row_by_row(audio, text)
    noise = shuffled_values(rows)
    assert noise.shape == (SHUFFLES, 8)
    assert int((shared_axes(rows).values > noise.max()).sum()) == 3
    assert torch.equal(noise, shuffled_values(rows))
    assert not torch.equal(noise, shuffled_values(rows, seed=7))


def test_partners_of_a_row_are_shuffled_together() -> None:
    audio, text = gaussian(7, 3), gaussian(12, 4, seed=1) + 3
    owner = torch.tensor([0, 0, 0, 2, 2, 3, 4, 4, 4, 4, 5, 6])  # row 1 has no partner
    rows = PairedRows(audio, text, torch.stack([owner, torch.arange(12)], dim=1))
    present, place = owner.unique(return_inverse=True)
    for draw, found in enumerate(shuffled_values(rows, seed=5)):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(5 + draw))
        covariance = np.cov(audio[present[order][place]].T, text.T, ddof=0)[:3, 3:]
        assert np.abs(np.linalg.svd(covariance)[1] - found.numpy()).max() < 1e-5


def test_one_unrelated_data_set_in_twenty_has_an_axis_above_the_noise() -> None:
    """The mean of three shuffles was the noise, which four in ten stood above."""
    own = torch.arange(120) // 2
    above = 0
    for seed in range(40):
        captions = gaussian(60, 6, seed=1_000 + seed)[own] + gaussian(120, 6, seed=2_000 + seed)
        rows = PairedRows(
            gaussian(60, 6, seed=seed), captions, torch.stack([own, torch.arange(120)], dim=1)
        )
        above += bool(shared_axes(rows).values[0] > shuffled_values(rows).max())
    assert above <= 6  # of 40; 2 are expected


def test_all_axes_rotate_the_text_onto_the_audio() -> None:
    audio = gaussian(40, 6)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=1)).Q
    a, t = project(
        shared_axes(row_by_row(audio, audio @ rotation + 3)), audio, audio @ rotation + 3, 6
    )
    assert float((a - t).abs().max()) < 1e-9


def test_axes_of_their_own_pairs_would_retrieve_noise_and_those_of_others_do_not() -> None:
    rows = row_by_row(gaussian(80, 100), gaussian(80, 100, seed=1))
    own = recall_by_axes(shared_axes(rows), rows, rows.gallery(), [64])[64].figures
    assert own["a2t_r1"] == 100
    fit, held = rows.of(rows.pairs[:40]), rows.of(rows.pairs[40:])
    found = recall_by_axes(shared_axes(fit), held, held.gallery(), [32])[32].figures
    assert found["a2t_r1"] < 20 and found["t2a_r1"] < 20


def test_equal_texts_tie_along_all_axes() -> None:
    """The last bits of a product in float64 differ by its place in a block."""
    audio = gaussian(90, 32)
    text = (audio + 2 * gaussian(90, 32, seed=1))[torch.arange(90) // 2]
    rows = row_by_row(audio, text)
    found = recall_by_axes(shared_axes(rows), rows, rows.gallery(), [16])[16].figures
    a, t = project(shared_axes(rows), rows.audio, rows.text, 16)
    alone = (a @ t[::2].T).float()  # each text once
    best = alone.argmax(dim=1)
    # Of two equal texts the wrong one comes first.
    assert found["a2t_r1"] == 0 and float((best == torch.arange(90) // 2).float().mean()) > 0.2


def test_retrieval_along_k_axes_is_that_of_a_loop() -> None:
    audio = gaussian(30, 6)
    rows = row_by_row(audio, audio + gaussian(30, 6, seed=1))
    axes = shared_axes(rows)
    u, _, vt = np.linalg.svd(np.cov(rows.audio.T, rows.text.T, ddof=0)[:6, 6:])
    a = (rows.audio - rows.audio.mean(0)).numpy() @ u[:, :2]
    t = (rows.text - rows.text.mean(0)).numpy() @ vt.T[:, :2]
    cosine = (a / np.linalg.norm(a, axis=1)[:, None]) @ (t / np.linalg.norm(t, axis=1)[:, None]).T
    hits = np.mean([np.argmax(row) == i for i, row in enumerate(cosine)])
    found = recall_by_axes(axes, rows, rows.gallery(), [2])[2].figures
    assert found["a2t_r1"] == pytest.approx(100 * hits)


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, [1]), (2, [2]), (3, [2, 3]), (8, [2, 4, 8]), (9, [2, 4, 8, 9])],
)
def test_numbers_of_axes_double_up_to_all(most: int, counts: list[int]) -> None:
    assert doubling(most) == counts
