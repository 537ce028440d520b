from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks import memory, which
from benchmarks.which import Cost, Way

SMALL: dict[str, Any] = {
    "embed_dim": 12,
    "audio": {
        "name": "beats",
        "config": {"embed_dim": 16, "encoder_layers": 2, "encoder_embed_dim": 96,
                   "encoder_ffn_embed_dim": 768, "encoder_attention_heads": 12, "conv_pos": 8,
                   "conv_pos_groups": 2},
    },
    "text": {
        "name": "bert",
        "config": {"vocab_size": 50, "hidden_size": 20, "num_hidden_layers": 2,
                   "num_attention_heads": 2, "intermediate_size": 24,
                   "max_position_embeddings": 32},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 1.0)
    monkeypatch.setattr(which, "QUEUE", 16)


def small(way: Way) -> Way:
    """The way, of a tiny model."""
    parts: Mapping[str, Any] = way.options
    options = dict(SMALL)
    for part in ("audio", "text"):
        asked = dict(parts.get(part, {}))
        if isinstance(asked.get("freeze"), int):
            asked["freeze"] = 1
        options[part] = {**SMALL[part], **asked}
    rest = {name: value for name, value in parts.items() if name not in options}
    return Way(way.title, {**options, **rest}, way.chunk_size, way.cached)


def test_the_largest_batch_is_what_fits_beside_the_rest() -> None:
    found = Cost(fixed=2e9, per_pair=0.5e9, flops=1)
    assert found.largest_batch(8) == 9  # 8 - 1.5 - 2 GB, 0.5 each
    assert found.largest_batch(3) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moco_atc", "moco_atc_atm"])
def test_what_stands_still_costs_less(name: str) -> None:
    memories, flops = {}, {}
    for key in ("all", "half", "chunks", "6", "frozen", "cached"):
        way = small(which.WAYS[key])
        model = memory.build_config(memory.RetrievalModelConfig, dict(way.options), "model")
        memories[key] = memory.count_step(
            name, model, 32, 16, autocast=False, chunk_size=way.chunk_size, cached=way.cached
        ).peak
        flops[key] = which.count_flops(name, model, way, 32)
    for less, more in [("half", "all"), ("6", "all"), ("frozen", "6"), ("cached", "frozen")]:
        assert memories[less] < memories[more], less
        assert flops[less] < flops[more], less
    # In chunks, every forward pass that has a gradient runs twice.
    assert memories["chunks"] < 0.5 * memories["all"]
    assert 1.1 < flops["chunks"] / flops["all"] < 1.4


@pytest.mark.slow
def test_flops_are_those_of_the_products() -> None:
    # Of cached outputs, `moco_atc` has the products of two projections: one forward for the
    # embeddings, one for the momentum copy, one backward for the weights; and those of the loss.
    way = small(which.WAYS["cached"])
    model = memory.build_config(memory.RetrievalModelConfig, dict(way.options), "model")
    batch = 8
    found = which.count_flops("moco_atc", model, way, batch)
    projections = 3 * 2 * batch * 12 * (96 + 20)
    similarities = 2 * batch * (batch + which.QUEUE) * 12  # of a direction, once
    assert projections < found <= projections + 12 * similarities
