"""How time and memory of a training step grow: with the queue, the clips, the batch, the processes.

    python -m benchmarks.growth OUT.svg [--quick]

One of the four is changed at a time, the others stay at :class:`Point`'s defaults: full criterion,
the model of ``benchmarks.memory`` between the toy and the paper's, filled queues, one thread a
process. Every point is a process of its own (or several, that talk through gloo with DDP, each with
the same batch), whose second and later steps are timed. Memory is what a process takes at its peak
above what it had before the model was there. The table has, for each doubling, the exponent of the
growth: 1 is linear, and above it a cost grows faster than what causes it. For processes it is that
of the time by the cores there are, since processes beyond them take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import RetrievalModelConfig
from atr_moco_plugin.optim.param_groups import parameter_groups
from benchmarks.memory import (
    CAPTION_TOKENS,
    HALFWAY,
    fill_queues,
    make_criterion,
    measurable,
    resident,
)


@dataclass(frozen=True)
class Point:
    """One setting: rows of a queue, seconds of a clip, pairs of a process's batch, processes."""

    queue: int = 4096
    seconds: int = 2
    batch: int = 4
    processes: int = 1


@dataclass(frozen=True)
class Cost:
    """Seconds of a step, and MiB of one process."""

    seconds: float
    mib: float


AXES: dict[str, tuple[int, ...]] = {
    "queue": (1024, 4096, 16_384, 65_536, 262_144, 1_000_000),
    "seconds": (2, 4, 8, 16, 32),
    "batch": (4, 8, 16, 32),
    "processes": (1, 2, 4),
}
NAMES = {
    "queue": "queue size", "seconds": "clip, seconds", "batch": "batch size",
    "processes": "processes",
}  # fmt: skip
STEPS = 3


def step_cost(point: Point, rank: int, folder: Path) -> Cost:
    """Time and memory of steps at a point, as this process of several sees them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # one model and one queue for all ranks
    before = resident("VmRSS")
    model = build_config(RetrievalModelConfig, HALFWAY, "model")
    criterion = make_criterion("moco_atc_atm", model, point.queue)
    fill_queues(criterion)
    trained = criterion
    if point.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank,
            world_size=point.processes,
        )  # fmt: skip
        trained = DistributedDataParallel(criterion, broadcast_buffers=False)
    optimizer = AdamW(parameter_groups(criterion, 0.05, lr=1e-5))
    audio = {"waveforms": torch.rand(point.batch, point.seconds * 16_000)}
    shape = (point.batch, CAPTION_TOKENS)
    text = {
        "input_ids": torch.ones(shape, dtype=torch.int64),
        "mask": torch.ones(shape, dtype=torch.bool),
    }
    ids = torch.arange(point.batch) + rank * point.batch + 1
    taken = []
    for _ in range(STEPS):
        start = time.perf_counter()
        trained(audio, text, ids, ids)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        criterion.on_optimizer_step()
        taken.append(time.perf_counter() - start)
    if point.processes > 1:
        dist.destroy_process_group()
    return Cost(min(taken[1:]), (resident("VmHWM") - before) / 2**20)


def measure(point: Point) -> Cost:
    """Run a point in processes of its own, and take what the first of them says."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.growth",
                    "--point",
                    json.dumps(asdict(point)),
                    "--rank",
                    str(rank),
                    "--folder",
                    folder,
                ],
                stdout=subprocess.PIPE,
                text=True,
                env=measurable(),
            )  # fmt: skip
            for rank in range(point.processes)
        ]
        printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"The steps of {point} failed; see above.")
    return Cost(**json.loads(printed[0].splitlines()[-1]))  # gloo prints lines before it


def exponents(sizes: Sequence[float], costs: Sequence[float]) -> list[float]:
    """Exponent of the growth from each point to the next: 1 where both double.

    Args:
        sizes: ascending.
        costs: as many.
    """
    points = list(zip(sizes, costs, strict=True))
    return [math.log(d / b) / math.log(c / a) for (a, b), (c, d) in pairwise(points)]


def table(results: dict[str, dict[int, Cost]]) -> str:
    """All points, with the exponent from the one before."""
    rows = []
    for axis, costs in results.items():
        sizes, times = list(costs), [cost.seconds for cost in costs.values()]
        loads = [float(x) for x in sizes]
        if axis == "processes":
            cores = os.cpu_count() or 1
            loads, times = loads[1:], times[1:]  # two share the memory's bandwidth, one has it
            loads = [max(x, cores) for x in loads]
        growth = _padded(exponents(loads, times), len(sizes))
        memory = _padded(
            exponents([float(x) for x in sizes], [c.mib for c in costs.values()]), len(sizes)
        )
        for (size, cost), in_time, in_memory in zip(costs.items(), growth, memory, strict=True):
            rows.append([NAMES[axis], f"{size:,}", f"{1000 * cost.seconds:,.0f}", in_time,
                         f"{cost.mib:,.0f}", in_memory])  # fmt: skip
    header = ["what grows", "to", "step ms", "exponent", "MiB", "exponent "]
    return Table(header, rows).markdown()


def _padded(values: Sequence[float], length: int) -> list[str]:
    shown = [f"{x:.2f}" for x in values]
    return ["-"] * (length - len(shown)) + shown


def draw(results: dict[str, dict[int, Cost]], path: Path) -> None:
    """One panel an axis, both costs over logarithmic scales, with a linear growth beside them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (axis, costs) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        sizes = list(costs)
        memory = axes.twinx()
        lines = [
            *axes.loglog(sizes, [c.seconds for c in costs.values()], "o-", label="time"),
            *memory.loglog(sizes, [c.mib for c in costs.values()], "s-", color="C1",
                           label="memory"),
            *axes.loglog(sizes, [costs[sizes[-1]].seconds * n / sizes[-1] for n in sizes], "--",
                         color="0.6", label="linear"),
        ]  # fmt: skip
        axes.set_title(NAMES[axis])
        axes.set_ylabel("step, seconds")
        memory.set_ylabel("MiB of a process")
        for side, values in ((axes, [c.seconds for c in costs.values()]),
                             (memory, [c.mib for c in costs.values()])):  # fmt: skip
            side.set_ylim(min(values) / 2, max(values) * 2)
            side.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            side.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            side.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(sizes, [_short(n) for n in sizes], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.legend(handles=lines, fontsize=8)
    figure.savefig(path, dpi=110)


def _short(n: int) -> str:
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}k" if n >= 1000 else str(n)


def main() -> None:
    """Measure all points, draw them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="picture to write, such as growth.svg")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of each only")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print(
            json.dumps(asdict(step_cost(Point(**json.loads(args.point)), args.rank, args.folder)))
        )
        return
    if args.out is None:
        parser.error("where to write the plot is missing, such as growth.svg")
    results: dict[str, dict[int, Cost]] = {}
    for axis, sizes in AXES.items():
        results[axis] = {}
        for size in sizes[:2] if args.quick else sizes:
            results[axis][size] = measure(replace(Point(), **{axis: size}))
            print(f"{NAMES[axis]} {size}: {results[axis][size]}", file=sys.stderr, flush=True)
    print(table(results))
    draw(results, args.out)


if __name__ == "__main__":
    main()
