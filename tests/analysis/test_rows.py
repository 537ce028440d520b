from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.analysis.rows import unit_rows
from atr_moco_plugin.errors import InputError


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_have_length_one_and_the_precision_that_was_given(dtype: torch.dtype) -> None:
    x = (3 * gaussian(50, 8)).to(dtype)
    found = unit_rows(x, "audio").rows
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = x.double() / x.double().norm(dim=1, keepdim=True)
    assert float((found.double() - expected).abs().max()) < (
        1e-15 if dtype == torch.float64 else 1e-7
    )


def test_quantised_embeddings_count_as_numbers() -> None:
    found = unit_rows(torch.tensor([[3, 4], [-5, 0]], dtype=torch.int8), "audio")
    assert found.rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [-1.0, 0.0]]


def test_lengths_other_than_one_are_told_and_rounding_is_not() -> None:
    unit = torch.nn.functional.normalize(gaussian(30, 16), dim=1)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert unit_rows(unit.to(dtype), "audio").notes == []
    unit[3] *= 2
    assert unit_rows(unit, "audio").notes == [
        "audio: rows have lengths from 1 to 2; every measure takes them scaled to length 1, as a "
        "search by cosine does."
    ]
    assert unit_rows(unit, "audio").about["longest"] == pytest.approx(2)


def test_constant_columns_are_told() -> None:
    x = torch.nn.functional.normalize(gaussian(30, 6), dim=1)
    x[:, 2] = 0
    x[:, 5] = 0
    found = unit_rows(torch.nn.functional.normalize(x, dim=1), "text")
    assert found.about["constant_columns"] == 2
    assert found.notes == [
        "text: 2 of 6 columns have the same value in every row (numbers 2, 5), so they tell no "
        "items apart."
    ]


def broken(row: int, value: float) -> Tensor:
    x = gaussian(9000, 3)
    x[row, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (broken(8123, float("nan")), "1 of 9,000 rows of audio are not finite (NaN or infinite): "
         "rows 8123, counted from 0; embed them anew or leave them out."),
        (broken(0, float("-inf")), "1 of 9,000 rows of audio are not finite (NaN or infinite): "
         "rows 0, counted from 0; embed them anew or leave them out."),
        (torch.cat([torch.eye(3), torch.zeros(7, 3)]), "7 of 10 rows of audio are all zeros, which "
         "have no direction: rows 3, 4, 5, 6, 7 and 2 more, counted from 0; embed them anew or "
         "leave them out."),
        (torch.ones(1, 3), "audio has 1 row; a spectrum needs at least two embeddings."),
        (torch.ones(0, 3), "audio has 0 rows; a spectrum needs at least two embeddings."),
        (torch.ones(4, 1), "audio has embeddings of 1 number; on a sphere they need at least two."),
        (torch.tensor([[1.0, 2, 3], [2, 4, 6], [0.1, 0.2, 0.3]]), "All 3 rows of audio have the "
         "same direction: there is nothing to analyse; give embeddings of different items."),
        (torch.ones(4), "audio is float32 of shape [4]; expected real numbers [rows, size of an "
         "embedding]."),
        (torch.ones(4, 3, dtype=torch.complex64), "audio is complex64 of shape [4, 3]; expected "
         "real numbers [rows, size of an embedding]."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        unit_rows(x, "audio")
