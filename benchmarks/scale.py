"""A million of everything: queues of 1,000,000 x 256, and a manifest of 1,000,000 rows.

    python -m benchmarks.scale [--rows 1000000] [--queue-rows 1000000] [--workers 4]

Each part runs in a process of its own, so that its peak is its own. Seconds are the processor's,
on one thread; memory is what the process takes beyond its size after the imports. The queues take
about 8 GB for a moment; the manifest has as many empty files beside it, which are deleted again.
Needs Linux.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.criterion import atc_loss
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank import RankLogger
from benchmarks.memory import resident

DIM = 256
BATCH = 64
FILES_A_FOLDER = 1_000
WORDS = (
    "a dog barks loudly while rain falls on a metal roof and people talk in the distance near a "
    "busy road as an engine starts"
).split()


class Silence(AudioReader):
    """A fifth of a second of nothing for every clip: audio is not measured here."""

    def __call__(
        self, source: Any, samples: Any = None, generator: Any = None
    ) -> NDArray[np.float32]:
        return np.zeros(3_200, np.float32)


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """One token a caption; tokenising is not measured."""
    ids = torch.ones(len(texts), 1, dtype=torch.int64)
    return ids, ids > 0


class Meter:
    """Processor seconds, which a busy machine does not change much, and memory above that of the
    process when it was made."""

    def __init__(self) -> None:
        self._base = resident("VmRSS")
        self.figures: dict[str, float] = {}

    def seconds(self, name: str, work: Callable[[], Any]) -> Any:
        """Do ``work`` and note how long it took, and what memory there was at its peak."""
        Path("/proc/self/clear_refs").write_text("5")
        start = time.process_time()
        result = work()
        self.figures[f"{name} s"] = time.process_time() - start
        self.figures[f"{name} peak"] = resident("VmHWM") - self._base
        return result

    def memory(self, name: str) -> None:
        """Note the memory there is now."""
        self.figures[name] = resident("VmRSS") - self._base


def measure_queues(rows: int) -> dict[str, float]:
    """Two queues of ``rows`` x 256: fill, enqueue, loss, rank report, save and resume."""
    meter = Meter()
    generator = torch.Generator().manual_seed(0)

    def batch(n: int) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.randint(0, 2**62, (2, n), generator=generator)
        return normalize(torch.randn(n, DIM, generator=generator), dim=1), ids[0], ids[1]

    queues = {name: EmbeddingQueue(rows, DIM) for name in ("audio", "text")}
    for _ in range(-(-rows // 4096)):
        for queue in queues.values():
            queue.enqueue(*batch(min(4096, rows)))
    meter.memory("queues")
    new = batch(BATCH)
    meter.seconds("enqueue", lambda: queues["audio"].enqueue(*new))

    audio, text = (batch(BATCH)[0].requires_grad_() for _ in range(2))
    temperature = torch.tensor([0.07], requires_grad=True)

    def loss() -> None:
        columns = queues["audio"].valid
        ids = [torch.cat([own, kept]) for own, kept in zip(new[1:], columns[1:], strict=True)]
        positives = positive_pairs(*new[1:], *ids, "clip_or_caption")
        atc_loss(
            audio, text, new[0], new[0], columns[0], queues["text"].valid[0], positives,
            temperature, 0.4,
        ).backward()  # fmt: skip

    meter.seconds("loss", loss)
    with tempfile.TemporaryDirectory() as folder:
        rank = RankLogger(queues, Path(folder) / "rank.jsonl")
        meter.seconds("first rank report", lambda: rank.log(1))  # with the random baseline
        meter.seconds("rank report", lambda: rank.log(2))
        file = Path(folder) / "queues.pt"
        state = {name: queue.state_dict() for name, queue in queues.items()}
        meter.seconds("save", lambda: torch.save(state, file))
        meter.figures["file"] = file.stat().st_size
        resumed = {name: EmbeddingQueue(rows, DIM) for name in queues}

        def resume() -> None:
            saved = torch.load(file, weights_only=True, mmap=True)
            for name, queue in resumed.items():
                queue.load_state_dict(saved[name])

        meter.seconds("resume", resume)
    for name, queue in queues.items():
        for own, other in zip(queue.buffers(), resumed[name].buffers(), strict=True):
            if not torch.equal(own, other):
                raise RuntimeError("A queue differs after saving and loading.")
    return meter.figures


def manifest_rows(rows: int) -> Iterator[tuple[str, str]]:
    """Paths such as LAION's, and captions of 8 to 15 words, hardly two alike."""
    for i in range(rows):
        words = (WORDS[(i * 7 + k * (1 + i % 5)) % len(WORDS)] for k in range(8 + i % 8))
        yield f"audio/part_{i // FILES_A_FOLDER:04d}/Y{i:011d}.wav", f"{' '.join(words)} {i}"


def write_manifests(folder: Path, rows: int) -> None:
    """``m.csv`` and ``m.jsonl`` of the same rows, and an empty file for each."""
    with (folder / "m.csv").open("w") as table, (folder / "m.jsonl").open("w") as lines:
        writer = csv.writer(table)
        writer.writerow(["file_name", "caption"])
        for i, (path, caption) in enumerate(manifest_rows(rows)):
            if i % FILES_A_FOLDER == 0:
                (folder / path).parent.mkdir(parents=True)
            (folder / path).touch()
            writer.writerow([path, caption])
            lines.write(json.dumps({"audio": path, "captions": [caption]}) + "\n")


def measure_manifest(path: Path, workers: int) -> dict[str, float]:
    """Open a manifest, and read batches of it with worker processes."""
    meter = Meter()
    options = ManifestConfig(path, check_audio=False)
    dataset = meter.seconds("open", lambda: open_manifest(options))
    meter.memory("dataset")
    meter.seconds("summary", dataset.summary)
    meter.figures["pickled"] = len(meter.seconds("pickle", lambda: pickle.dumps(dataset)))
    dataset.read_with(Silence(16_000))

    def make_loader() -> PairLoader:
        return PairLoader(
            dataset, "train", tokenize, 2 * BATCH, max_seconds=1.0, shuffle=True, seed=0,
            drop_last=True, num_workers=workers,
        )  # fmt: skip

    loader = meter.seconds("loader", make_loader)
    meter.seconds("first batch", lambda: next(loader))
    for _ in range(min(200, len(loader) - 2)):
        next(loader)
    meter.memory("training process")
    own = [_private(child) for child in _children()]  # after each has made some batches
    meter.figures["own to a worker"] = max(own, default=0)
    return meter.figures


def _children() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


def _private(pid: int) -> int:
    """Bytes that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(x.split()[1]) * 1024 for x in lines if x.startswith("Private_"))


def in_own_process(*arguments: object) -> dict[str, float]:
    """The figures that this module prints when it is run with arguments."""
    command = [sys.executable, "-m", "benchmarks.scale", "--part", *map(str, arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def show(figures: dict[str, float]) -> str:
    """Figures as a table: seconds, and bytes as MiB."""
    rows = [
        [name.removesuffix(" s"), f"{value:.3g} s"]
        if name.endswith(" s")
        else [name, f"{value / 2**20:,.0f} MiB"]
        for name, value in figures.items()
    ]
    return Table(["", "figure"], rows).markdown()


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queue-rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        what, *rest = args.part
        if what == "queues":
            figures = measure_queues(int(rest[0]))
        else:
            figures = measure_manifest(Path(rest[0]), int(rest[1]))
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifests(folder, args.rows)
        for file in ("m.csv", "m.jsonl"):
            print(f"{args.rows:,} rows, {file}, {args.workers} workers:\n")
            print(show(in_own_process("manifest", folder / file, args.workers)), end="\n\n")
    print(f"Two queues of {args.queue_rows:,} x {DIM}:\n")
    print(show(in_own_process("queues", args.queue_rows)), end="\n\n")


if __name__ == "__main__":
    main()
