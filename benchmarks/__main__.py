"""All benchmarks against a baseline, one after the other, and one table.

python -m benchmarks [--device cuda] [--json FILE]
"""

from __future__ import annotations

from benchmarks import (
    beats,
    contrastive,
    evaluation,
    fbank,
    harness,
    loading,
    momentum,
    rank,
    search,
    step,
    text_states,
)

BENCHMARKS = (
    momentum,
    contrastive,
    rank,
    fbank,
    beats,
    loading,
    evaluation,
    step,
    text_states,
    search,
)

if __name__ == "__main__":
    harness.run([module.rows for module in BENCHMARKS], __doc__.splitlines()[0])
