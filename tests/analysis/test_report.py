from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.analysis import analyse
from atr_moco_plugin.errors import InputError


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_it_is_ready_for_json_and_says_how_many_rows_each_measure_used() -> None:
    audio = gaussian(60, 8)
    result = analyse(audio, audio + 0.5 * gaussian(60, 8, seed=1))
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == result
    assert again["pairs"] == {"pairs": 60, "groups": 60, "audio": 60, "text": 60, "by": "row"}
    assert again["mutual_neighbours"]["pairs"] == again["cka"]["pairs"] == 60
    assert again["retrieval_by_axes"]["pairs"] + again["retrieval_by_axes"]["fitted_on"] == 60


def test_other_lengths_without_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"^audio has 5 rows and text 6, so row i .* \(--pairs\)"):
        analyse(gaussian(5, 3), gaussian(6, 3))
