"""Gradient caching: memory and time of a large batch in chunks, beside a small one and beside the
whole.

python -m benchmarks.grad_cache [--seconds] [--real]

Without an option the bytes of a step of the paper's models are counted, as :mod:`benchmarks.memory`
counts them, in a minute and without the memory. ``--real`` measures the resident set of a smaller
model on this CPU, and ``--seconds`` its time; both need an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.optim import AdamW

from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import RetrievalModelConfig
from benchmarks import memory

LARGE, CHUNK = 64, 8
NAMES = ("atc", "moco_atc", "moco_atc_atm")
QUEUE = 16_384
REAL = """
import sys
from benchmarks.memory import real_step
name, batch, chunk = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(real_step(name, batch, 1024, chunk_size=chunk or None))
"""


def counted(autocast: bool) -> str:
    """GiB of a step: a small batch, a large one, and the large one in chunks of the small."""
    rows = []
    for name in NAMES:
        found = [
            memory.count_step(
                name, RetrievalModelConfig(), size, QUEUE, autocast=autocast, chunk_size=chunk
            ).peak
            for size, chunk in ((CHUNK, None), (LARGE, None), (LARGE, CHUNK))
        ]
        rows.append([name, *(f"{x / memory.GIB:.2f}" for x in found), f"{found[2] / found[0]:.2f}"])
    return Table(_header("GiB"), rows).markdown()


def real() -> str:
    """MiB of a real step of :func:`benchmarks.memory.halfway`, each in a process of its own."""
    rows = []
    for name in NAMES:
        found = []
        for size, chunk in ((CHUNK, 0), (LARGE, 0), (LARGE, CHUNK)):
            command = [sys.executable, "-c", REAL, name, str(size), str(chunk)]
            run = subprocess.run(
                command, check=True, capture_output=True, text=True,
                env=memory.measurable(),
            )  # fmt: skip
            found.append(int(run.stdout))
        rows.append([name, *(f"{x / 2**20:,.0f}" for x in found), f"{found[2] / found[0]:.2f}"])
    return Table(_header("MiB"), rows).markdown()


def seconds(batch_size: int = 16, chunk_size: int = 4, rounds: int = 5) -> str:
    """The median step of :func:`benchmarks.memory.halfway` whole and in chunks, in turns."""
    rows = []
    for name in NAMES:
        steps = [_step(name, batch_size, chunk) for chunk in (None, chunk_size)]
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for step, found in zip(steps, times, strict=True):
                start = time.perf_counter()
                step()
                found.append(time.perf_counter() - start)
        whole, chunked = (statistics.median(x[1:]) for x in times)
        rows.append([name, f"{whole:.2f}", f"{chunked:.2f}", f"{chunked / whole:.2f}"])
    header = ["criterion", f"batch of {batch_size}", f"in chunks of {chunk_size}", "ratio"]
    return Table(header, rows).markdown()


def _step(name: str, batch_size: int, chunk_size: int | None) -> Callable[[], None]:
    criterion = memory.make_criterion(name, memory.halfway(), 1_024)
    use_chunks(criterion, chunk_size)
    optimizer = AdamW([p for p in criterion.parameters() if p.requires_grad])
    return lambda: memory.one_step(criterion, optimizer, batch_size, False, memory.CAPTION_TOKENS)


def _header(unit: str) -> list[str]:
    sizes = (f"batch of {CHUNK}", f"batch of {LARGE}", f"{LARGE} in chunks of {CHUNK}")
    return ["criterion", *(f"{x}, {unit}" for x in sizes), "chunks over small"]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--real", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.real:
        print(real())
    elif args.seconds:
        print(seconds())
    else:
        for autocast, title in ((False, "float32"), (True, "bfloat16 autocast")):
            print(f"{title}:\n\n{counted(autocast)}\n")


if __name__ == "__main__":
    main()
