"""What the figures of a run are called where people read them."""

from __future__ import annotations

MEASURES = {
    "loss_atc": "ATC Loss",
    "loss_atm": "ATM Loss",
    "loss_teacher": "Teacher Loss",
    "atm_accuracy": "ATM Accuracy",
    "temperature": "Temperature",
    "alpha": "Alpha",
    "momentum": "Momentum",
    "queue_fill": "Queue Fill",
    "queue_size": "Queue Size",
    "queue_rows": "Queue Rows",
    "bias": "Bias",
    "gamma": "Gamma",
    "clips_seen": "Clips Seen",
}
"""What a criterion measures in training, to its title."""


def figure_titles() -> dict[str, str]:
    """Recalls of a validation, with and without re-ranking, to their titles."""
    figures = {f"{way}_r{k}": f"{way.upper()} R@{k}" for way in ("a2t", "t2a") for k in (1, 5, 10)}
    figures = {"r_sum": "R-sum", **figures}
    return figures | {f"reranked_{name}": f"Re-ranked {title}" for name, title in figures.items()}


TITLES = MEASURES | figure_titles()
"""A figure to its title; any other one goes by its own name."""
