"""``python -m atr_moco_plugin.recipes.evaluate OUT --config run=RUN split=test``: evaluate a
checkpoint of a training run, on its own data set or another."""

from __future__ import annotations

from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation

if __name__ == "__main__":
    run_evaluation()
