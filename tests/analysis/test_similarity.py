from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import PairedRows
from atr_moco_plugin.analysis.similarity import linear_cka


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def row_by_row(audio: Tensor, text: Tensor) -> PairedRows:
    return PairedRows(audio, text, torch.arange(len(audio))[:, None].expand(-1, 2))


def hsic1(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The unbiased estimate as Song et al. write it."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


@pytest.mark.parametrize(("rows", "d", "e"), [(12, 5, 5), (9, 20, 3), (4, 6, 6), (200, 4, 7)])
def test_it_is_that_of_the_gram_matrices(rows: int, d: int, e: int) -> None:
    audio = gaussian(rows, d) + 2
    text = torch.cat([audio[:, :2], gaussian(rows, e - 2, seed=1)], dim=1)
    k, l = (audio @ audio.T).numpy(), (text @ text.T).numpy()  # noqa: E741
    centre = np.eye(rows) - 1 / rows
    kc, lc = centre @ k @ centre, centre @ l @ centre
    found = linear_cka(row_by_row(audio, text))
    assert found is not None and found.debiased is not None
    norm = np.linalg.norm(kc) * np.linalg.norm(lc)
    assert found.linear == pytest.approx(np.sum(kc * lc) / norm, abs=1e-9)
    debiased = hsic1(k, l) / np.sqrt(hsic1(k, k) * hsic1(l, l))
    assert found.debiased == pytest.approx(debiased, abs=1e-9)


def test_the_value_of_shuffled_pairs_is_the_mean_over_all_shuffles() -> None:
    audio, text = gaussian(5, 3), gaussian(5, 4, seed=1)
    values = []
    for order in itertools.permutations(range(5)):
        found = linear_cka(row_by_row(audio, text[list(order)]))
        assert found is not None
        values.append(found.linear)
    first = linear_cka(row_by_row(audio, text))
    assert first is not None and first.shuffled == pytest.approx(np.mean(values))


def test_rotation_scale_and_shift_change_nothing() -> None:
    audio = gaussian(50, 6)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=1)).Q
    found = linear_cka(row_by_row(audio, 3 * audio @ rotation - 1))
    assert found is not None and found.debiased is not None
    assert found.linear == pytest.approx(1) and found.debiased == pytest.approx(1)


def test_unrelated_embeddings_with_few_rows_are_alike_unless_it_is_debiased() -> None:
    found = linear_cka(row_by_row(gaussian(100, 200), gaussian(100, 200, seed=1)))
    assert found is not None and found.debiased is not None
    assert found.linear > 0.6 and found.linear == pytest.approx(found.shuffled, abs=0.02)
    assert abs(found.debiased) < 0.02


def test_there_is_none_without_variation_and_no_debiased_one_of_three_rows() -> None:
    assert linear_cka(row_by_row(torch.full((6, 3), 0.1), gaussian(6, 3))) is None
    found = linear_cka(row_by_row(gaussian(3, 4), gaussian(3, 4, seed=1)))
    assert found is not None and found.debiased is None
