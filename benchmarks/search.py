"""Exact search in an index of 1,000,000 windows, beside a product with a matrix in memory.

    python -m benchmarks.search [--threads 2]

Ours is ``nearest`` of an index in a folder: the product with the mapped float16 matrix, the ten
best and their recordings. The baseline is the product with a float32 matrix alone, by PyTorch and
by NumPy, which take turns with ours, ten queries a turn. Writes 1.1 GB into the temporary folder,
and takes 3.5 GB of memory. A corrected search takes turns with a plain one of the same index, which
has a bank of 1,000 sentences by then; giving it one takes about half a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.search.bank import make_bank
from atr_moco_plugin.search.local import create_local, open_local
from atr_moco_plugin.search.store import Embedded, IndexInfo, Recording
from benchmarks import harness
from benchmarks.harness import Machine, Row

DIM, K = 256, 10
WINDOWS = 10
"""Of a recording."""

_PUT, _TURN = 2000, 10
_SENTENCES = 1000
_PAUSE = 0.2
"""Seconds in which the threads of the other library, which wait for work awake, fall asleep."""

_MEMORY = """
import json, sys
import numpy as np
import torch
from pathlib import Path
from atr_moco_plugin.search.local import open_local

def kib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

torch.mv(torch.ones(4096, 256).half(), torch.ones(256).half())
queries = np.load(sys.argv[2])
before = kib("VmRSS")
with open_local(Path(sys.argv[1])) as store:
    for query in queries:
        store.nearest(query[None], 10)
    print(json.dumps([kib("VmHWM") - before, kib("RssAnon")]))
"""


def unit(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """``[rows, DIM]`` random directions."""
    vectors = random.standard_normal((rows, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(folder: Path, rows: int) -> NDArray[np.float32]:
    """Make an index; returns its vectors as the index has them, ``[rows, DIM]``."""
    info = IndexInfo(
        model="made up", fingerprint="0", embed_dim=DIM, sample_rate=16_000,
        window_seconds=10.0, hop_seconds=10.0,
    )  # fmt: skip
    random = np.random.default_rng(0)
    matrix = np.empty((rows, DIM), np.float32)
    starts = 10.0 * np.arange(WINDOWS)
    spans = np.stack([starts, starts + 10], axis=1)
    with create_local(folder, info) as store:
        for first in range(0, rows, _PUT * WINDOWS):
            vectors = unit(random, min(_PUT * WINDOWS, rows - first))
            matrix[first : first + len(vectors)] = vectors.astype(np.float16)
            parts = vectors.reshape(-1, WINDOWS, DIM)
            store.put(
                [_embedded(first // WINDOWS + n, spans, part) for n, part in enumerate(parts)]
            )
    return matrix


def _embedded(number: int, spans: NDArray[np.float64], vectors: NDArray[np.float32]) -> Embedded:
    path = f"/archive/{number // 1000:03}/{number:07}.wav"
    recording = Recording(path=path, size=1, mtime_ns=1, digest="0" * 64, seconds=10.0 * WINDOWS)
    return Embedded(recording, spans, vectors)


def in_turns(ways: list[Callable[[int], object]], rounds: int) -> NDArray[np.float64]:
    """``[ways, rounds]`` seconds of ways that take turns, each after a search that is not timed."""
    seconds = np.empty((len(ways), rounds))
    for first in range(0, rounds, _TURN):
        for place, way in enumerate(ways):
            time.sleep(_PAUSE)
            way(first)
            for turn in range(first, min(first + _TURN, rounds)):
                start = time.perf_counter()
                way(turn)
                seconds[place, turn] = time.perf_counter() - start
    return seconds


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """Median and 99th percentile of a search, and its memory."""
    size, rounds = (2_000, 5) if tiny else (1_000_000, 200)
    queries = unit(np.random.default_rng(1), rounds)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        matrix = fill(folder, size)
        tensor = torch.from_numpy(matrix)
        with open_local(folder) as store:
            ways = [
                lambda n: store.nearest(queries[n : n + 1], K),
                lambda n: torch.mv(tensor, torch.from_numpy(queries[n])),
                lambda n: matrix @ queries[n],
            ]
            seconds = in_turns(ways, rounds)
            error = max(
                _error(store.nearest(query[None], K)[0], matrix @ query) for query in queries
            )
            sentences = in_turns([lambda n: store.recording_scores(queries[:3])], 5)[0]
        seconds_of_bank, corrected = _corrected(folder, queries)
        name = f"search in {size:,} x {DIM}, the {K} best with their recordings"
        said = "the product alone, float32 in memory, "
        floor = machine.floor(2 * size * DIM, 2 * size * DIM)
        for which, summary in (
            ("median", np.median),
            ("99th percentile", partial(np.percentile, q=99)),
        ):
            for way, other in ((1, "PyTorch"), (2, "NumPy")):
                yield Row(
                    f"{name}: {which}", said + other, float(summary(seconds[0])),
                    float(summary(seconds[way])), floor, "one read of the float16 matrix",
                    error, f"cosines of the {K} best", target=1.3, cost=True,
                )  # fmt: skip
        yield Row(
            f"best window of each of {size // WINDOWS:,} recordings for three sentences",
            "three products, float32 in memory, NumPy", float(np.median(sentences)),
            3 * float(np.median(seconds[2])), cost=True,
        )  # fmt: skip
        for which, summary in (
            ("median", np.median),
            ("99th percentile", partial(np.percentile, q=99)),
        ):
            yield Row(
                f"corrected search in {size:,} x {DIM}: {which}", "the same search, not corrected",
                float(summary(corrected[0])), float(summary(corrected[1])), cost=True,
            )  # fmt: skip
        yield Row(
            f"another bank of {_SENTENCES:,} sentences for {size:,} windows",
            "a search that is not corrected", seconds_of_bank, float(np.median(corrected[1])),
            cost=True,
        )  # fmt: skip
        np.save(Path(place) / "queries.npy", queries[:20])
        vectors = next(folder.glob("*.f16")).stat().st_size / 2**20
        yield Row(
            f"search in {size:,} x {DIM}: memory, mapped pages too", "the file of vectors",
            _mib(folder, Path(place) / "queries.npy"), vectors, target=None if tiny else 1.1,
            cost=True, unit="MiB",
        )  # fmt: skip


def _corrected(folder: Path, queries: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """Seconds to give the index a bank, and of corrected and plain searches, in turns."""
    vectors = unit(np.random.default_rng(2), _SENTENCES)
    bank = make_bank([f"{n:06}" for n in range(_SENTENCES)], lambda _: vectors)
    with open_local(folder, write=True) as writer:
        begin = time.perf_counter()
        writer.set_bank(bank)
        seconds = time.perf_counter() - begin
    with open_local(folder) as store:
        ways: list[Callable[[int], object]] = [
            lambda n: store.nearest(queries[n : n + 1], K, alpha=0.75),
            lambda n: store.nearest(queries[n : n + 1], K),
        ]
        return seconds, in_turns(ways, len(queries))


def _error(hits: list, scores: NDArray[np.float32]) -> float:
    best = np.sort(scores)[::-1][: len(hits)]
    return float(np.abs(best - [hit.score for hit in hits]).max() / best[0])


def _mib(folder: Path, queries: Path) -> float:
    command = [sys.executable, "-c", _MEMORY, str(folder), str(queries)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(found)[0]) / 1024


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
