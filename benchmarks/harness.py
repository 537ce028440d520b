"""Timing of one way of doing a thing against another, beside the least that it can take.

A benchmark is a module with ``rows(machine, tiny=False)``, which yields a :class:`Row` for each
figure. Both ways take turns in one process and the fastest round of each counts, since everything
else that a machine does only adds time. ``tiny`` chooses sizes for the tests.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from atr_moco_plugin.evaluation import Table
from benchmarks.memory import LiveBytes


@dataclass(frozen=True)
class Row:
    """One figure: ours, its baseline and its floor on the same work.

    Attributes:
        name: what was done, with its sizes.
        baseline_name: what it is compared with.
        ours: seconds, or MiB where ``unit`` says so.
        baseline: the same of the baseline.
        floor: the least it could be on this machine; ``None`` where there is no such figure.
        floor_name: what the floor is made of.
        error: largest difference of the two results, relative to the largest result where
            ``error_name`` does not say otherwise; ``None`` where there is nothing to compare.
        error_name: what was compared.
        target: the ratio to reach; ``None`` for none.
        cost: whether the ratio is ours / baseline, to be at most the target, and not
            baseline / ours, to be at least the target.
        unit: of ``ours``, ``baseline`` and ``floor``.
    """

    name: str
    baseline_name: str
    ours: float
    baseline: float
    floor: float | None = None
    floor_name: str = ""
    error: float | None = None
    error_name: str = ""
    target: float | None = None
    cost: bool = False
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Times faster or smaller than the baseline; for a cost, times its cost."""
        return self.ours / self.baseline if self.cost else self.baseline / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.cost else self.ratio >= self.target


@dataclass(frozen=True)
class Machine:
    """A device and its measured rates.

    Attributes:
        device: where to run.
        name: of the device.
        flops: floating-point operations a second of a large matrix product in float32 (TF32 is
            off), by number type: ``float32``, ``float64`` and, on a GPU, ``bfloat16``.
        bandwidth: bytes a second, read and written, of a sum in place too large for the caches.
    """

    device: torch.device
    name: str
    flops: dict[str, float]
    bandwidth: float

    @classmethod
    def measured(cls, device: torch.device) -> Machine:
        """Measure the rates of a device; takes some seconds."""
        cuda = device.type == "cuda"
        size = 8192 if cuda else 2048
        types = (torch.float32, torch.float64, *([torch.bfloat16] if cuda else []))
        flops = {}
        for dtype in types:
            x = torch.randn(size, size, device=device, dtype=dtype)
            out = torch.empty_like(x)
            seconds = fastest([partial(torch.mm, x, x, out=out)], device, rounds=15)[0]
            flops[str(dtype).removeprefix("torch.")] = 2 * size**3 / seconds
        source = torch.ones(2**28 if cuda else 2**26, device=device)
        target = torch.empty_like(source)
        # In place, since a processor may read what a copy is about to write over.
        seconds = fastest([lambda: target.add_(source)], device, rounds=15)[0]
        return cls(device, _name(device), flops, 3 * source.nbytes / seconds)

    def floor(self, flops: float = 0.0, moved: float = 0.0, dtype: str = "float32") -> float:
        """Seconds that this much arithmetic or this many bytes moved takes, whichever is more."""
        return max(flops / self.flops[dtype], moved / self.bandwidth)

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in self.flops.items())
        threads = "" if self.device.type == "cuda" else f", {torch.get_num_threads()} threads"
        return (
            f"{self.name}{threads}, PyTorch {torch.__version__}; matrix products {rates}; "
            f"memory {self.bandwidth / 1e9:,.0f} GB/s"
        )


def fastest(
    ways: Sequence[Callable[[], object]],
    device: torch.device,
    *,
    rounds: int = 5,
    before: Callable[[], object] | None = None,
) -> list[float]:
    """Seconds of the fastest round of each way, which take turns; one round before is not timed.

    Args:
        ways: what to time.
        device: waited for before and after each.
        rounds: how often.
        before: done before each timing, outside of it.
    """
    best = [float("inf")] * len(ways)
    for turn in range(rounds + 1):
        for k, work in enumerate(ways):
            if before is not None:
                before()
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            if turn:
                best[k] = min(best[k], time.perf_counter() - start)
    return best


def peak_mib(work: Callable[[], object], device: torch.device) -> float:
    """MiB of the tensors that ``work`` makes, at the moment when there are most of them."""
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _wait(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with LiveBytes() as live:
        work()
    return live.peak / 2**20


def largest_error(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest value of the reference, in float64."""
    ours, reference = ours.detach().double(), reference.detach().double()
    return float((ours - reference).abs().max() / reference.abs().max().clamp_min(1e-300))


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    header = [
        "what", "floor", "ours", "baseline", "which baseline", "ratio", "target", "met",
        "error", "of what", "floor is",
    ]  # fmt: skip
    return Table(header, [_cells(row) for row in rows]).markdown()


def _cells(row: Row) -> list[str]:
    def value(x: float | None) -> str:
        if x is None:
            return "-"
        return f"{x:,.0f} MiB" if row.unit == "MiB" else _seconds(x)

    sign = "at most" if row.cost else "at least"
    return [
        row.name,
        value(row.floor),
        value(row.ours),
        value(row.baseline),
        row.baseline_name,
        f"{row.ratio:.2f}" if row.ratio < 100 else f"{row.ratio:,.0f}",
        "-" if row.target is None else f"{sign} {row.target:g}",
        {None: "-", True: "yes", False: "no"}[row.met],
        "-" if row.error is None else f"{row.error:.0e}",
        row.error_name or "-",
        row.floor_name or "-",
    ]


def _seconds(x: float) -> str:
    return f"{x:.2f} s" if x >= 1 else f"{1e3 * x:.3g} ms" if x >= 1e-4 else f"{1e6 * x:.0f} us"


def run(benchmarks: Sequence[Callable[[Machine], Iterator[Row]]], description: str) -> None:
    """Command line of benchmarks: measure, print one table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    machine = Machine.measured(torch.device(args.device))
    print(machine, flush=True)
    rows = []
    for benchmark in benchmarks:
        for row in benchmark(machine):
            rows.append(row)
            print(f"{time.perf_counter() - start:5.0f} s  {row.name}", file=sys.stderr, flush=True)
    print(f"\n{table(rows)}\n\n{time.perf_counter() - start:.0f} s in all")
    if args.json:
        write_json(args.json, machine, rows)


def write_json(path: Path, machine: Machine, rows: Iterable[Row], **more: object) -> None:
    """Write the machine, the rows with their ratios, and what else there is."""
    values = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]
    path.write_text(json.dumps({"machine": str(machine), "rows": values, **more}, indent=1) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
