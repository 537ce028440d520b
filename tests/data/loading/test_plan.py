from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.loading.plan import batch_positions, epoch_order, max_samples, num_batches


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
