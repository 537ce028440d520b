"""Made-up rows of the bench of negatives."""

from __future__ import annotations

from typing import Any


def row(variant: str, seed: int, r_sum: float, **values: Any) -> dict[str, Any]:
    """A row of the toy data, batch 8: all that tables, figures and predictors read."""
    return {
        "data": "toy",
        "variant": variant,
        "batch": 8,
        "pairs": 8,
        "options": {"positives": "pair", "temperature_min": 0.05},
        "seed": seed,
        "lr": 5e-4,
        "steps": 100,
        "budget": 2.0,
        "spent": 2.0,
        "price": {"seconds": 0.02, "waiting": None},
        "start": None,
        "code": "",
        "valid": [r_sum - 30, r_sum - 20, r_sum - 10, r_sum],
        "dual": {"test": {"r_sum": r_sum}},
        "reranked": None,
        "measures": {},
        **values,
    }
