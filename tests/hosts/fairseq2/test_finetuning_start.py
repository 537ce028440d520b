"""A run of the recipes as the start of a fine-tuning."""

from __future__ import annotations

from pathlib import Path

import torch

from atr_moco_plugin.finetuning.start import find_start


def test_a_run_and_a_checkpoint_of_it(trained: Path) -> None:
    start = find_start(trained)
    assert (start.kind, start.together, start.window_seconds) == ("run", True, 1.0)
    started = start.build()
    assert started.tokenizer is not None and started.model.training
    assert all(p.requires_grad for p in started.model.parameters())
    last = find_start(trained / "checkpoints" / "step_4").build().model.state_dict()
    first = find_start(trained / "checkpoints" / "step_2").build().model.state_dict()
    best = started.model.state_dict()
    assert last.keys() == best.keys() and not all(torch.equal(x, first[n]) for n, x in last.items())
    assert any(all(torch.equal(x, y[n]) for n, x in best.items()) for y in (first, last))
