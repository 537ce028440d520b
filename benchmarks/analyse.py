"""What an analysis of embeddings costs: seconds and memory by the number of rows.

    python -m benchmarks.analyse [--rows 12500 25000 50000 100000] [--dim 512] [--threads 2]

Two matrices with the falling spectrum and the common directions of trained embeddings, row i of one
belonging to row i of the other. Every number of rows is a process of its own, so that its peak is
its own; memory is what the analysis takes beyond the embeddings. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis import analyse
from atr_moco_plugin.evaluation import Table
from benchmarks.memory import resident

LIMIT = 60.0
"""Seconds that the largest analysis may take."""


def embeddings(rows: int, dim: int) -> tuple[Tensor, Tensor]:
    """Audio and text ``[rows, dim]`` of length 1, float32."""
    generator = torch.Generator().manual_seed(0)
    strength = torch.arange(1, dim + 1) ** -0.5
    audio = torch.randn(rows, dim, generator=generator).mul_(strength)
    text = torch.randn(rows, dim, generator=generator).mul_(strength).mul_(0.7).add_(audio)
    return normalize(audio.add_(0.05), dim=1), normalize(text.sub_(0.05), dim=1)


def measure(rows: int, dim: int) -> dict[str, float]:
    """Wall and processor seconds and bytes of one analysis, in this process."""
    analyse(*embeddings(200, dim))  # libraries load what they need
    audio, text = embeddings(rows, dim)
    base = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    wall, processor = time.perf_counter(), time.process_time()
    result = analyse(audio, text)
    return {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "memory": resident("VmHWM") - base,
        "embeddings": audio.nbytes + text.nbytes,
        "r1": result["retrieval"]["cosine"]["a2t_r1"],
    }


def table(rows: Sequence[int], dim: int, threads: int) -> tuple[Table, float]:
    """The table, and the seconds of the last number of rows."""
    cells, seconds = [], 0.0
    for count in rows:
        command = [sys.executable, "-m", "benchmarks.analyse", "--part", str(count)]
        command += ["--dim", str(dim), "--threads", str(threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        seconds = found["seconds"]
        sizes = [f"{found[key] / 2**20:,.0f} MiB" for key in ("embeddings", "memory")]
        times = [f"{found[key]:.1f} s" for key in ("seconds", "processor")]
        cells.append([f"{count:,} x {dim}", *times, *sizes])
    header = ["both sides", "seconds", "of the processors", "embeddings", "memory beyond them"]
    return Table(header, cells), seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.part:
        print(json.dumps(measure(args.part, args.dim)))
        return
    shown, seconds = table(args.rows, args.dim, args.threads)
    print(shown.markdown())
    met = "met" if seconds <= LIMIT else "not met"
    print(f"\nTarget: {args.rows[-1]:,} x {args.dim} in at most {LIMIT:.0f} s: {met}.")


if __name__ == "__main__":
    main()
