"""The exchanges between processes; what training with them gives is in ``distributed/``.

The two gloo processes run this file as a script, once for all tests; pytest runs the other half.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from gloo import process_group, run_on_ranks
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.distributed import (
    broadcast_bool,
    checksum,
    gather,
    gather_counts,
    gather_packed,
    gather_padded,
    mean_weight,
    process_index,
    processes_that_differ,
    world_size,
)

WORLD = 2


def uneven_rows(of_rank: int) -> Tensor:
    """Three rows on the first rank, two on the second."""
    return torch.randn(3 - of_rank, 4, generator=torch.Generator().manual_seed(of_rank))


def weights(of_rank: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(10 + of_rank))


def mixed(of_rank: int) -> list[Tensor]:
    """What one exchange carries: a row of them has an odd number of bytes."""
    rows = uneven_rows(of_rank)
    return [
        rows > 0,
        rows[:, 0].double().requires_grad_(),
        (1e9 * rows).long(),
        rows.bfloat16()[:, :3].T.contiguous().T,
        rows[:, :0],
        rows.view(-1, 2, 2).half(),
    ]


def sequences() -> tuple[Tensor, None, Tensor]:
    """Of one clip, longer on the second rank."""
    length = 2 + 3 * process_index()
    return torch.ones(1, length, 4), None, torch.ones(1, length, dtype=torch.bool)


def exchanges() -> list[int]:
    """How many collectives each of these gathers takes."""
    found, rows, counts = [], uneven_rows(process_index()), [3, 2]
    for exchange in (
        lambda: gather(rows),
        lambda: gather(rows, counts=counts),
        lambda: gather(rows.clone().requires_grad_(), grad=True, counts=counts),
        lambda: gather_padded(*sequences()),
        lambda: gather_packed(rows, rows.long(), rows > 0, counts=counts),
    ):
        together = dist.all_gather_into_tensor
        with mock.patch.object(dist, "all_gather_into_tensor", wraps=together) as counted:
            exchange()
        found.append(counted.call_count)
    return found


def run_exchanges() -> dict[str, Any]:
    x = uneven_rows(process_index()).requires_grad_()
    with_gradient = gather(x, grad=True)
    (with_gradient * weights(process_index())).sum().backward()
    without = gather(x)
    return {
        "world": torch.tensor([world_size(), process_index()]),
        "sizes": torch.tensor(gather_counts(len(x), x.device)),
        "rows": with_gradient.detach(),
        "rows_without_gradient": without,
        "has_gradient": torch.tensor([with_gradient.requires_grad, without.requires_grad]),
        "gradient": x.grad,
        "int64": gather(torch.full((3 - process_index(),), 2**62 + process_index())),
        "packed": gather_packed(*mixed(process_index()), counts=[3, 2]),
        "bool": gather(torch.tensor([[True, False], [False, True]])[: 2 - process_index()]),
        "longest": gather_padded(*sequences()),
        "exchanges": torch.tensor(exchanges()),
        "decision": torch.tensor(
            [broadcast_bool(process_index() == i, x.device) for i in range(WORLD)]
        ),
        "empty": gather(torch.ones(2 * process_index(), 3)),
        "weight": torch.tensor([mean_weight(3, 3 + process_index()), mean_weight(2, 4)]),
        "differing": processes_that_differ(
            {
                "equal": [torch.arange(6.0).view(3, 2), torch.tensor([2**62])],
                "unequal": [torch.arange(3), torch.tensor([2**62 + process_index()])],
                "longer": [
                    torch.zeros(2 + process_index(), 2),
                    torch.zeros(1 + process_index(), 2),
                ],
                "one": [torch.ones(1 + process_index(), 2)],
            }
        ),
    }


def main(own_rank: int, folder: Path) -> None:
    with process_group(own_rank, WORLD, folder):
        torch.save(run_exchanges(), folder / f"{own_rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("distributed")
    run_on_ranks(__file__, WORLD, folder)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(WORLD)]


def test_gathers_put_uneven_batches_in_rank_order(ranks) -> None:
    expected = torch.cat([uneven_rows(0), uneven_rows(1)])
    for i, found in enumerate(ranks):
        assert found["world"].tolist() == [2, i]
        assert found["sizes"].tolist() == [3, 2]
        assert torch.equal(found["rows"], expected)
        assert torch.equal(found["rows_without_gradient"], expected)
        assert found["has_gradient"].tolist() == [True, False]
        assert found["int64"].tolist() == [2**62] * 3 + [2**62 + 1] * 2
        assert found["bool"].tolist() == [[True, False], [False, True], [True, False]]
        assert found["empty"].tolist() == [[1.0] * 3] * 2


def test_the_first_rank_decides(ranks) -> None:
    for found in ranks:
        assert found["decision"].tolist() == [True, False]
    cpu = torch.device("cpu")
    assert broadcast_bool(True, cpu) and not broadcast_bool(False, cpu)


def test_gradient_of_a_gather_is_summed_over_the_ranks_that_used_the_row(ranks) -> None:
    both = weights(0) + weights(1)
    torch.testing.assert_close(ranks[0]["gradient"], both[:3])
    torch.testing.assert_close(ranks[1]["gradient"], both[3:])


def test_padding_reaches_the_longest_of_all_ranks(ranks) -> None:
    for states, none, mask in (x["longest"] for x in ranks):
        assert none is None
        assert states.shape == (2, 5, 4) and mask.shape == (2, 5)
        for i in range(WORLD):
            assert states[i].sum() == (2 + 3 * i) * 4 and not states[i, 2 + 3 * i :].any()
            assert mask[i].sum() == 2 + 3 * i and not mask[i, 2 + 3 * i :].any()


def test_counts_that_are_known_are_not_exchanged_again(ranks) -> None:
    # The rows and the counts; the rows twice; sequences and their shapes; all together.
    assert [x["exchanges"].tolist() for x in ranks] == [[2, 1, 1, 2, 1]] * WORLD


def test_tensors_of_any_dtype_and_shape_travel_together(ranks) -> None:
    for found in ranks:
        expected = [torch.cat(parts) for parts in zip(mixed(0), mixed(1), strict=True)]
        assert len(found["packed"]) == len(expected) == 6
        for x, y in zip(found["packed"], expected, strict=True):
            assert x.dtype == y.dtype and not x.requires_grad and torch.equal(x, y)


def test_a_single_process_gathers_nothing() -> None:
    x = torch.ones(3, 2, 4, requires_grad=True)
    assert gather(x) is x and gather(x, grad=True) is x
    assert gather_padded(x, None) == [x, None]
    assert (world_size(), process_index(), gather_counts(3, x.device)) == (1, 0, [3])


def test_the_mean_over_ranks_is_the_mean_over_items(ranks) -> None:
    assert ranks[0]["weight"].tolist() == [2.0, 1.0]
    assert ranks[1]["weight"].tolist() == [1.5, 1.0]
    assert mean_weight(3, 3) == 1 and mean_weight(torch.tensor(3), torch.tensor(3)) == 1


def test_every_rank_finds_what_differs_from_rank_0(ranks) -> None:
    assert [x["differing"] for x in ranks] == [{"unequal": [1], "longer": [1], "one": [1]}] * WORLD
    assert processes_that_differ({"alone": [torch.ones(2)]}) == {}


DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)


@given(
    st.integers(0, 5), st.integers(1, 4), st.sampled_from(DTYPES), st.integers(0, 2**31), st.data()
)
def test_a_checksum_shows_any_changed_element(
    rows: int, columns: int, dtype: torch.dtype, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (10 * torch.randn(rows, columns, generator=generator)).to(dtype)
    assert checksum(x).dtype == torch.int64 and checksum(x).dim() == 0
    assert checksum(x) == checksum(x.clone()) == checksum(x.T.contiguous().T)
    if rows == 0:
        assert checksum(x) == 0
        return
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    changed = x.clone()
    changed[row, column] = x[row, column].logical_not() if dtype == torch.bool else 11_111
    assert checksum(changed) != checksum(x)


def test_a_checksum_shows_rows_that_changed_places_and_reads_bits() -> None:
    x = torch.randn(4, 3)
    assert checksum(x) != checksum(x[[1, 0, 2, 3]])
    nan = torch.tensor([float("nan"), 0.0])
    assert checksum(nan) == checksum(nan.clone())
    assert checksum(torch.tensor([-0.0])) != checksum(torch.tensor([0.0]))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
