from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.loading.plan import (
    BatchSettings,
    batch_positions,
    by_length,
    epoch_order,
    max_samples,
    num_batches,
    padding,
    saved_settings,
)


@given(
    size=st.integers(1, 60), batch=st.integers(1, 9), world=st.integers(1, 5), drop=st.booleans()
)
def test_batches_cover_the_order(size: int, batch: int, world: int, drop: bool) -> None:
    count = num_batches(size, batch, world, drop_last=drop)
    seen: list[int] = []
    for index in range(count):
        rows = [batch_positions(size, batch, rank, world, index)[0] for rank in range(world)]
        assert len({len(row) for row in rows}) == 1 and 1 <= len(rows[0]) <= batch
        seen += [position for row in rows for position in row]
    if drop:
        assert (
            sorted(seen) == list(range(count * batch * world)) and size - len(seen) < batch * world
        )
    else:
        assert set(seen) == set(range(size)) and len(seen) - size < world


def test_order_is_a_permutation_that_follows_seed_and_epoch() -> None:
    orders = [
        tuple(epoch_order(50, shuffle=True, seed=seed, epoch=epoch))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert epoch_order(4, shuffle=False, seed=1, epoch=1).tolist() == [0, 1, 2, 3]


def test_max_samples() -> None:
    assert max_samples(10, 16_000) == 160_000 and max_samples(1e-9, 16_000) == 1
    assert max_samples(0.25, 44_100) == 11_025
    with pytest.raises(ValueError, match="max_seconds must be positive, not -1"):
        max_samples(-1, 16_000)


def order_by_length(
    lengths: list[int], step: int, steps: int, seed: int = 1, epoch: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A drawn order, and the same epoch by length."""
    order = epoch_order(len(lengths), shuffle=True, seed=seed, epoch=epoch)
    values = np.array(lengths)
    return order, by_length(order, values, step=step, steps=steps, seed=seed, epoch=epoch)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=80),
    step=st.integers(1, 9),
    steps=st.integers(1, 30),
)
def test_by_length_changes_the_order_alone(lengths: list[int], step: int, steps: int) -> None:
    order, ordered = order_by_length(lengths, step, steps)
    whole = len(lengths) // step * step
    assert sorted(ordered) == sorted(order)
    # An incomplete last step is any of the examples, not the longest or the shortest.
    assert ordered[whole:].tolist() == order[whole:].tolist()
    before = {frozenset(order[k : k + step * steps]) for k in range(0, whole, step * steps)}
    for k in range(0, whole, step):
        chosen = set(ordered[k : k + step].tolist())
        assert any(chosen <= window for window in before)


@given(
    seconds=st.lists(st.floats(0.5, 30, width=32), min_size=12, max_size=60),
    batch=st.integers(1, 4),
    world=st.integers(1, 3),
)
def test_sorting_the_whole_epoch_leaves_the_shortest_steps(
    seconds: list[float], batch: int, world: int
) -> None:
    step = batch * world
    values = np.array(seconds, np.float32)
    ranks = np.argsort(np.argsort(values)).tolist()
    order, ordered = order_by_length(ranks, step, len(seconds))
    # By the definition, batch after batch.
    padded = used = 0.0
    for index in range(len(seconds) // step):
        for rank in range(world):
            rows = batch_positions(len(seconds), batch, rank, world, index)[0]
            padded += float(values[ordered[rows]].max()) * batch
            used += float(values[ordered[rows]].sum())
    share = padding(ordered, values, batch, world)
    assert share == pytest.approx(1 - used / padded, abs=1e-5)
    # A step takes as long as its longest clip on any process, and no order makes these shorter. An
    # incomplete last step is left out of both.
    whole = len(seconds) // step * step
    best = np.sort(values[order[:whole]]).reshape(-1, step)[:, -1].sum()
    assert values[ordered[:whole]].reshape(-1, step).max(1).sum() == pytest.approx(best)
    if world == 1:
        assert share <= padding(order, values, batch, world) + 1e-6


def test_equal_lengths_keep_the_drawn_order_within_steps_and_steps_are_shuffled() -> None:
    order, ordered = order_by_length([5] * 40, step=4, steps=10)
    steps = {tuple(row) for row in order.reshape(-1, 4)}
    assert {tuple(row) for row in ordered.reshape(-1, 4)} == steps
    assert ordered.tolist() != order.tolist()
    lengths = list(range(40))
    runs = {tuple(order_by_length(lengths, 4, 10, epoch=e)[1]) for e in range(5)}
    assert len(runs) == 5
    firsts = [int(order_by_length(lengths, 4, 10, epoch=e)[1][:4].min()) for e in range(20)]
    assert min(firsts) < 10 and max(firsts) > 25


def test_padding_of_no_whole_step_is_none() -> None:
    assert padding(np.arange(3), np.ones(3, np.float32), 4, 1) == 0


def test_settings_of_before_are_settings_without_the_new_fields() -> None:
    saved = saved_settings({"split": "a"})
    assert saved["split"] == "a" and saved["bucket_by_length"] == 0
    old = {"split", "batch_size", "max_seconds", "shuffle", "seed", "world_size", "drop_last"}
    old |= {"captions", "augment"}  # the fields of the first checkpoints have no default
    assert saved.keys() == {x.name for x in fields(BatchSettings)} - old | {"split"}
    assert saved_settings({"bucket_by_length": 3})["bucket_by_length"] == 3
