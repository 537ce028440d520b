"""``queue_size: auto``: the queues grow while their older half is worth it."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.rank import RankLogger


def auto(model, **options) -> MocoAtc:
    values = {"queue_size": "auto", "queue_min": 8, "queue_max": 32, **options}
    return MocoAtc(model, MocoAtcConfig(**values)).train()


def fill(criterion: MocoAtc, directions: int, steps: int, seed: int = 0) -> list[int]:
    """Enqueue steps of 4 vectors with this many directions; sizes after each step."""
    generator, sizes = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        for queue in criterion.queues.values():
            x = torch.zeros(4, queue.dim)
            x[:, :directions] = torch.randn(4, directions, generator=generator)
            queue.enqueue(x / x.norm(dim=1, keepdim=True), torch.arange(4), torch.arange(4))
        criterion.on_optimizer_step()
        sizes.append(criterion.audio_queue.size)
    return sizes


def test_queues_double_while_the_space_has_more_directions(tiny_model) -> None:
    # 4 of 8 rows, then 8 of 16, then 16 of 32, each as soon as it is full.
    assert fill(auto(tiny_model()), 12, 8) == [8, 16, 16, 32, 32, 32, 32, 32]


def test_queues_stay_where_there_are_none_and_grow_when_there_are(tiny_model) -> None:
    criterion = auto(tiny_model())
    assert fill(criterion, 1, 6) == [8] * 6
    # Asked again after a whole round of 8 rows and not before.
    assert fill(criterion, 12, 4) == [8, 16, 16, 32]


def test_one_modality_that_gains_is_enough(tiny_model) -> None:
    criterion = auto(tiny_model())
    flat = torch.eye(1, 12).expand(8, 12)
    ids = torch.arange(8)
    criterion.audio_queue.enqueue(flat, ids, ids)
    criterion.text_queue.enqueue(torch.eye(8, 12), ids, ids)
    criterion.on_optimizer_step()
    assert [queue.size for queue in criterion.queues.values()] == [16, 16]


def test_nothing_grows_during_the_warm_up(tiny_model) -> None:
    assert fill(auto(tiny_model(), queue_warmup_steps=5), 12, 6) == [8, 8, 8, 8, 16, 16]


def test_growth_can_be_limited(tiny_model) -> None:
    criterion = auto(tiny_model())
    criterion.limit_growth(21)
    assert fill(criterion, 12, 12)[-1] == 21
    assert criterion.audio_queue.valid[0].shape == (21, 12)
    criterion = auto(tiny_model())
    criterion.limit_growth(5)
    assert fill(criterion, 12, 8)[-1] == 8


def test_a_queue_of_a_fixed_size_does_not_grow(tiny_model) -> None:
    assert fill(MocoAtc(tiny_model(), MocoAtcConfig(queue_size=8)), 12, 6) == [8] * 6
    assert MocoAtcConfig(queue_size=8, queue_min=9, queue_max=1).queue_size == 8


def test_the_present_size_is_reported(tiny_model, tiny_batch) -> None:
    criterion = auto(tiny_model(), queue_min=4)
    sizes, fills = [], []
    for seed in range(3):
        out = criterion(**tiny_batch(seed=seed))
        criterion.on_optimizer_step()
        sizes.append(int(out["queue_size"]))
        fills.append(float(out["queue_fill"]))
    assert set(out) == set(criterion.measures)
    assert (sizes, fills) == ([4, 8, 16], [1.0, 1.0, 0.75])
    record = RankLogger(criterion.queues).log(3)
    assert record["sources"]["audio"]["queue_size"] == 16
    assert record["sources"]["audio"]["fill"] == 0.75


def train(criterion: MocoAtcAtm, tiny_batch, steps: range) -> None:
    """As fairseq2 calls it: the last step of a run is closed when the next run starts."""
    optimizer = AdamW([p for p in criterion.parameters() if p.requires_grad], lr=1e-3)
    for step in steps:
        if step > 0:
            criterion.on_optimizer_step()
        # Without the optimizer's state, which is not what is tested, every step starts afresh.
        optimizer.state.clear()
        criterion(**tiny_batch(seed=step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_run_grows_as_the_uninterrupted_one(tiny_model, tiny_batch, stop: int) -> None:
    config = MocoAtcAtmConfig(
        atm_start=0, queue_size="auto", queue_min=6, queue_max=40, momentum=0.5
    )
    whole = MocoAtcAtm(tiny_model(), config).train()
    train(whole, tiny_batch, range(7))
    stopped = MocoAtcAtm(tiny_model(), config).train()
    train(stopped, tiny_batch, range(stop))
    resumed = MocoAtcAtm(tiny_model(seed=1), config).train()
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, tiny_batch, range(stop, 7))

    assert whole.audio_queue.size > config.queue_min
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
