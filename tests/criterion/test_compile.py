"""``torch.compile`` of a criterion: what changes in every step is no part of a graph."""

from __future__ import annotations

import copy
from typing import Any

import torch

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig

CONFIG = MocoAtcAtmConfig(atm_start=0, queue_size=20, alpha_warmup_steps=4, queue_warmup_steps=2)
STEPS = 8  # the queue fills in the fifth
SETTLED = 3  # a size that changes is compiled for any size when it is seen a second time


def test_no_graph_is_made_anew_in_later_steps(tiny_model, tiny_batch) -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    criterion = MocoAtcAtm(tiny_model(), CONFIG).train()
    plain = copy.deepcopy(criterion)
    compiled = torch.compile(criterion, backend=backend)
    counts = []
    for step in range(STEPS):
        batch = tiny_batch(seed=step)
        found, expected = compiled(**batch), plain(**batch)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=1e-5)
        found["loss"].backward()
        for one in (criterion, plain):
            one.zero_grad()
            one.on_optimizer_step()
        counts.append(len(graphs))
    assert counts[SETTLED:] == counts[SETTLED : SETTLED + 1] * (STEPS - SETTLED), counts
    assert counts[0] > 0
    torch._dynamo.reset()
