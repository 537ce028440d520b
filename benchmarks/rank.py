"""The rank of embeddings: one report, and the logger beside a training that fills the queues.

python -m benchmarks.rank [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank import RankLogger, rank_report
from atr_moco_plugin.rank.spectrum import singular_values
from benchmarks import harness
from benchmarks.harness import Machine, Row


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    size, dim, batch = (512, 16, 32) if tiny else (65_536, 256, 256)
    queues = {name: EmbeddingQueue(size, dim).to(machine.device) for name in ("audio", "text")}
    new = _embeddings(batch, dim, machine)
    ids = torch.arange(size, device=machine.device)
    for queue in queues.values():
        queue.enqueue(_embeddings(size, dim, machine), ids, ids)

    yield _report(machine, queues["audio"].valid[0])

    logger = RankLogger(queues)
    steps = iter(range(10**6))

    def step() -> None:
        for queue in queues.values():
            queue.enqueue(new, ids[:batch], ids[:batch])
        logger.log(next(steps))

    def plain() -> list[Tensor]:
        return [
            torch.linalg.svdvals(x - mean)
            for x in (queue.valid[0] for queue in queues.values())
            for mean in (0, x.mean(dim=0))
        ]

    # The first readings sum all rows; those that follow are what a step of training costs.
    step()
    seconds = harness.fastest([step, plain], machine.device)
    record = logger.log(next(steps))
    assert record is not None
    found = [
        torch.tensor(source[kind]["spectrum"])
        for source in record["sources"].values()
        for kind in ("raw", "centered")
    ]
    yield Row(
        name=f"RankLogger, a step of two queues {size:,} x {dim}, batches of {batch} written",
        baseline_name="svdvals of both, raw and centred",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(flops=8 * batch * dim**2, dtype="float64"),
        floor_name="products of the rows in and out of both queues; without eigenvalues",
        error=max(
            harness.largest_error(ours, (theirs / theirs[0]).cpu())
            for ours, theirs in zip(found, plain(), strict=True)
        ),
        error_name="normalised singular values, rounded to 1e-6 in the record",
        target=20,
    )


def _report(machine: Machine, x: Tensor) -> Row:
    count, dim = x.shape
    ways = [
        lambda: rank_report(x),
        lambda: torch.linalg.svdvals(x),
    ]
    seconds = harness.fastest(ways, machine.device)
    return Row(
        name=f"rank_report of {count:,} x {dim}",
        baseline_name="torch.linalg.svdvals",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(flops=count * dim * (dim + 1), dtype="float64"),
        floor_name="the upper half of one product in float64",
        error=harness.largest_error(singular_values(x).cpu(), torch.linalg.svdvals(x).cpu()),
        error_name="singular values, of the largest",
        target=20 if machine.device.type == "cuda" else 3,
    )


def _embeddings(count: int, dim: int, machine: Machine) -> Tensor:
    """Rows of length 1 with the falling spectrum of trained ones and a common direction."""
    strength = torch.arange(1, dim + 1, device=machine.device) ** -0.5
    return normalize(torch.randn(count, dim, device=machine.device) * strength + 0.05, dim=1)


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
