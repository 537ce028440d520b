"""How fast clips are decoded: one process, worker processes, and the cache of decoded audio.

    python -m benchmarks.loading [--clips 96] [--rounds 3] [--workers 0 1 2]

Generated clips of 10 s at 32 kHz, 16-bit mono, as AudioCaps and WavCaps often come, and one file of
ten minutes, 48 kHz stereo. All ways take turns in each round, and the table has the fastest round
of each; training crops are whole clips here, so nothing is saved by reading less. "Own CPU" is
processor time of the process that trains, a clip: workers take the rest elsewhere, so they help as
far as cores are free. The last rows read a random crop of 10 s out of the long file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from atr_moco_plugin.data.audio import fit_length, read_audio
from atr_moco_plugin.data.augment import AugmentConfig
from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loader import PairLoader
from atr_moco_plugin.data.reader import AudioReader
from atr_moco_plugin.evaluation import format_table

SECONDS = 10.0
RATE = 32_000
AUGMENT = AugmentConfig(gain_db=6, noise_probability=0.5, shift_seconds=1)


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """One token a caption; tokenising is not measured."""
    ids = torch.ones(len(texts), 1, dtype=torch.int64)
    return ids, ids > 0


def write_clips(folder: Path, suffix: str, count: int) -> list[Clip]:
    """A tone in noise, which FLAC makes about a quarter smaller."""
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(int(SECONDS * RATE)) * 0.05) * 0.3
    clips = []
    for k in range(count):
        path = folder / f"{k}.{suffix}"
        soundfile.write(path, tone + rng.normal(0, 0.02, tone.shape), RATE, subtype="PCM_16")
        clips.append(Clip(f"{suffix}{k}", ("a caption",), path))
    return clips


def loader(
    clips: list[Clip], workers: int, cache: Path | None, augment: AugmentConfig | None = None
) -> PairLoader:
    """Batches of 16 in one order for all."""
    dataset = AudioTextDataset("loading", {"train": clips})
    dataset.read_with(AudioReader(cache_dir=cache))
    return PairLoader(
        dataset, "train", tokenize, 16, max_seconds=SECONDS, shuffle=True, seed=0, drop_last=True,
        num_workers=workers, augment=augment,
    )  # fmt: skip


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that ``work`` takes, and processor seconds of this process."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name) / "cache"
        sets = {suffix: write_clips(folder, suffix, args.clips) for suffix in ("wav", "flac")}
        ways: dict[str, dict[str, Callable[[], object]]] = defaultdict(dict)
        for suffix, clips in sets.items():
            ways["decode in a loop"][suffix] = lambda c=clips: [read_audio(x.source) for x in c]
            for kind, place, augment in (
                ("", None, None), (", augmented", None, AUGMENT), (", cache", cache, None),
            ):  # fmt: skip
                for workers in args.workers:
                    source = loader(clips, workers, place, augment)
                    ways[f"PairLoader, {workers} workers{kind}"][suffix] = lambda s=source: list(s)
        seconds: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for turn in range(args.rounds + 1):
            for way, of_suffix in ways.items():
                for suffix, work in of_suffix.items():
                    taken = timed(work)
                    if turn:  # the first round starts workers and fills the cache
                        seconds[way, suffix].append(taken)
        fastest = {key: min(values) for key, values in seconds.items()}
        rate = {key: args.clips / wall for key, (wall, _) in fastest.items()}
        own = {key: 1000 * min(cpu for _, cpu in v) / args.clips for key, v in seconds.items()}
        rows = [
            [
                way,
                *(f"{rate[way, suffix]:.0f}" for suffix in sets),
                *(f"{rate[way, suffix] / rate['decode in a loop', suffix]:.2f}" for suffix in sets),
                *(f"{own[way, suffix]:.2f}" for suffix in sets),
            ]
            for way in ways
        ]
        kinds = ("clips/s", "ratio", "own CPU ms")
        header = ["way", *(f"{suffix.upper()}, {kind}" for kind in kinds for suffix in sets)]
        print(format_table(header, rows, markdown=True))
        print(f"\nCache: {sum(f.stat().st_size for f in cache.rglob('*.npy')) / 2**20:.0f} MiB\n")

        long = folder / "long.flac"
        block = np.random.default_rng(0).integers(-3000, 3000, (60 * 48_000, 2), dtype=np.int16)
        with soundfile.SoundFile(long, "w", 48_000, 2, "PCM_16") as file:
            for _ in range(10):
                file.write(block)
        samples = int(SECONDS * 16_000)
        generator = torch.Generator().manual_seed(0)
        whole, _ = min(timed(lambda: fit_length(read_audio(long), samples)) for _ in range(2))
        crop, _ = min(timed(lambda: read_audio(long, samples, generator)) for _ in range(10))
        rows = [["whole file", f"{1000 * whole:.0f}"], ["the crop alone", f"{1000 * crop:.1f}"]]
        print(format_table(["10 s of 10 minutes, FLAC", "ms"], rows, markdown=True))


if __name__ == "__main__":
    main()
