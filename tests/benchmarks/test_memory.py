from __future__ import annotations

import sys

import pytest
import torch
from torch.optim import AdamW

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.model import RetrievalModelConfig
from benchmarks import memory

SMALL = {
    "embed_dim": 12,
    "audio": {
        "name": "beats",
        "config": {"embed_dim": 16, "encoder_layers": 1, "encoder_embed_dim": 96,
                   "encoder_ffn_embed_dim": 768, "encoder_attention_heads": 12, "conv_pos": 8,
                   "conv_pos_groups": 2},
    },
    "text": {
        "name": "bert",
        "config": {"vocab_size": 50, "hidden_size": 20, "num_hidden_layers": 1,
                   "num_attention_heads": 2, "intermediate_size": 24,
                   "max_position_embeddings": 32},
    },
}  # fmt: skip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> RetrievalModelConfig:
    monkeypatch.setattr(memory, "SECONDS", 1.0)
    return build_config(RetrievalModelConfig, SMALL, "model")


@pytest.mark.slow
def test_the_count_is_that_of_a_real_step(model: RetrievalModelConfig) -> None:
    name = "moco_atc_atm"
    counted = memory.count_step(name, model, 3, 50, autocast=False, cuda=False, tokens=5)
    with memory.LiveBytes() as live:
        criterion = memory.make_criterion(name, model, 50)
        memory.fill_queues(criterion)
        optimizer = AdamW(memory.parameter_groups(criterion, 0.05, lr=1e-5))
        memory.one_step(criterion, optimizer, 3, False, 5)
        live.peak = live.now
        memory.one_step(criterion, optimizer, 3, False, 5)
    # What a kernel allocates and returns is counted alike; a few scalars are made by Python.
    assert counted.peak == pytest.approx(live.peak, rel=0.01)
    assert counted.weights == counted.gradients


@pytest.mark.slow
def test_it_is_linear_in_the_batch_and_in_the_queue(model: RetrievalModelConfig) -> None:
    def count(batch: int, queue: int) -> memory.Step:
        return memory.count_step("moco_atc", model, batch, queue, autocast=False, tokens=5)

    sizes = [count(b, 0).activations for b in (16, 32, 48)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.01)
    rows = [count(16, q) for q in (10_000, 20_000, 30_000)]
    # Two queues of 12 float32, four int64 ids: those of the second clip of a mixture too.
    assert [x.queues - rows[0].queues for x in rows] == [0, 2 * 800_000, 4 * 800_000]
    # The loss reads the queue in blocks and keeps nothing of its length.
    assert len({x.activations for x in rows}) == 1


@pytest.mark.slow
def test_less_under_autocast_and_with_kernels_that_keep_no_probabilities(
    model: RetrievalModelConfig,
) -> None:
    def count(**kernels: bool) -> memory.Step:
        return memory.count_step("moco_atc_atm", model, 8, 8, tokens=5, **kernels)

    plain = count(autocast=False)
    assert count(autocast=True).activations < plain.activations
    assert plain.activations < count(autocast=False, cuda=False).activations
    assert plain.peak < plain.ddp == plain.peak + plain.gradients
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_the_table_is_markdown(monkeypatch: pytest.MonkeyPatch, capsys, model) -> None:
    monkeypatch.setattr(memory, "RetrievalModelConfig", lambda: model)
    monkeypatch.setattr(sys, "argv", ["memory", "--batch-sizes", "2", "--queue-sizes", "4"])
    memory.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (2 + 3) and len({row.count("|") for row in rows}) == 1
