"""Decoding clips of 10 s in one process and with worker processes.

    python -m benchmarks.loading

Generated clips at 32 kHz, 16-bit mono, as AudioCaps and WavCaps often come. The workers have been
started before, and all batches of an epoch are taken as fast as they come.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.encoders.beats.fbank import SAMPLE_RATE
from benchmarks import harness
from benchmarks.harness import Machine, Row

RATE = 32_000
WORKERS = 2
BATCH_SIZE = 16


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """One token a caption; tokenising is not measured."""
    ids = torch.ones(len(texts), 1, dtype=torch.int64)
    return ids, ids > 0


def write_clips(folder: Path, suffix: str, count: int, seconds: float) -> list[Clip]:
    """A tone in noise, which FLAC makes about a quarter smaller."""
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(int(seconds * RATE)) * 0.05) * 0.3
    clips = []
    for k in range(count):
        path = folder / f"{k}.{suffix}"
        soundfile.write(path, tone + rng.normal(0, 0.02, tone.shape), RATE, subtype="PCM_16")
        clips.append(Clip(f"{suffix}{k}", ("a caption",), path))
    return clips


def _decoded(path: Path) -> Tensor:
    waveform, rate = soundfile.read(path, dtype="float32")
    return torch.from_numpy(soxr.resample(waveform, rate, SAMPLE_RATE, quality="HQ"))


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    count, seconds = (4, 0.5) if tiny else (256, 10.0)
    cores = min(WORKERS, len(os.sched_getaffinity(0)))
    for suffix in ("wav", "flac"):
        with tempfile.TemporaryDirectory() as folder:
            clips = write_clips(Path(folder), suffix, count, seconds)
            data = AudioTextDataset("loading", {"train": clips})
            loader = PairLoader(
                data.read_with(AudioReader(SAMPLE_RATE)), "train", tokenize,
                min(BATCH_SIZE, count // 2), max_seconds=seconds, shuffle=False, seed=0,
                drop_last=True, num_workers=WORKERS,
            )  # fmt: skip

            def plain(clips: list[Clip] = clips) -> Tensor:
                return torch.stack([_decoded(Path(str(clip.source))) for clip in clips])

            def ours(loader: PairLoader = loader) -> list[Tensor]:
                return [batch.waveforms for batch in loader]

            error = harness.largest_error(torch.cat(ours()), plain())
            taken = harness.fastest([ours, plain], torch.device("cpu"), rounds=3)
            yield Row(
                name=f"a clip of {seconds:g} s at 32 kHz, {suffix.upper()}, {WORKERS} workers",
                baseline_name="soundfile and soxr in one process",
                ours=taken[0] / count,
                baseline=taken[1] / count,
                floor=taken[1] / count / cores,
                floor_name=f"the baseline over {cores} cores",
                error=error,
                error_name="samples",
                target=0.9 * cores,
            )


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
