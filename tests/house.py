"""The parts of the package that the tests of its structure speak of."""

from __future__ import annotations

CORE = {
    "contracts",
    "criterion",
    "distributed",
    "errors",
    "learned_distance",
    "momentum",
    "optim",
    "queue",
    "rank",
    "tensors",
    "tokens",
}
"""The criteria and what they need: torch and numpy alone."""

FOUNDATION = {"config", "config_builder", "errors", "ids", "io", "plugins", "sample_rate"}
"""What every folder may build on."""
