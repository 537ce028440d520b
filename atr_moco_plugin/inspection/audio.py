"""One pass over the audio of a data set: what is in each clip, and what to say of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.audio.read import MIN_SECONDS, too_short
from atr_moco_plugin.data.audio.silence import silent_samples
from atr_moco_plugin.data.audio.source import unusable
from atr_moco_plugin.data.audio.stream import resampled_blocks
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import map_ahead
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.inspection.audio_findings import audio_findings
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.decoding import Decoded, average, decoded
from atr_moco_plugin.inspection.findings import Finding
from atr_moco_plugin.inspection.fingerprint import SAMPLE_RATE, fingerprint


def inspect_audio(
    dataset: AudioTextDataset,
    *,
    num_workers: int = 0,
    decoder: Decoder = "soundfile",
    progress: bool = False,
) -> tuple[list[ClipAudio], list[Finding]]:
    """Decode every clip once, whole, at its own rate.

    Args:
        dataset: an open data set; no reader is needed. Open it with ``allow_shared_audio: true``,
            or it refuses the copies that are looked for.
        num_workers: threads that decode ahead; 0 decodes in this one.
        decoder: what reads the files.
        progress: whether to show on standard error how far it is.

    Returns:
        What is in each clip, split by split in their order, and the findings on single clips, see
        :func:`~.audio_findings.audio_findings`. Copies are found by :func:`~.same_audio.same_audio`
        and :func:`~.leaks.leaks`.
    """
    audio: list[ClipAudio] = []
    for split, clips in dataset.splits.items():
        look_at = partial(_look_at, dataset, decoder, split)
        found = map_ahead(look_at, clips, num_workers, ahead=4 * num_workers)
        name = f"{dataset.name}, {split}"
        audio.extend(tqdm(found, name, len(clips), unit=" clips", disable=not progress))
    return audio, audio_findings(audio)


def _look_at(dataset: AudioTextDataset, decoder: Decoder, split: str, clip: Clip) -> ClipAudio:
    try:
        with decoded(dataset, clip, decoder) as audio:
            return _measured(split, clip, audio)
    except (InputError, OSError) as error:
        return ClipAudio(split, clip.key, problem=" ".join(str(error).split()))


def _measured(split: str, clip: Clip, audio: Decoded) -> ClipAudio:
    meter = _Meter(audio.rate, audio.full_scale)
    blocks = resampled_blocks(meter.listen(audio.blocks), audio.rate, SAMPLE_RATE)
    words = fingerprint(blocks)
    if too_short(meter.samples, meter.rate):
        raise unusable(
            clip.key, f"lasts {meter.samples / meter.rate:.3f} s, less than {MIN_SECONDS} s"
        )
    size = meter.samples * meter.channels
    return ClipAudio(
        split,
        clip.key,
        seconds=meter.samples / meter.rate,
        rate=meter.rate,
        channels=meter.channels,
        peak=meter.peak,
        rms=float(np.sqrt(meter.squares.sum() / size)),
        mono_rms=float(np.sqrt(meter.mono_squares / meter.samples)),
        clipped=meter.clipped / size,
        silent=meter.silent / meter.samples,
        offset=float(np.abs(meter.sums / meter.samples).max()),
        dead_channels=int((meter.squares == 0).sum()),
        digest=meter.digest.digest() if meter.peak else b"",
        words=words,
    )


@dataclass
class _Meter:
    """Sums over the blocks that go through it.

    Attributes:
        rate: in Hz.
        full_scale: from which on a sample may be clipped.
    """

    rate: int
    full_scale: float
    samples: int = 0
    channels: int = 0
    peak: float = 0.0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    mono_squares: float = 0.0
    clipped: int = 0
    silent: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.blake2b(str(self.rate).encode(), digest_size=16)

    def listen(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The blocks ``[n, channels]`` averaged over their channels."""
        for block in blocks:
            mono = average(block)
            self.samples += len(block)
            self.channels = block.shape[1]
            self.sums = self.sums + block.sum(axis=0, dtype=np.float64)
            self.squares = self.squares + np.square(block, dtype=np.float64).sum(axis=0)
            peak = float(np.abs(block).max(initial=0))
            self.peak = max(self.peak, peak)
            if peak >= self.full_scale:
                self.clipped += sum(
                    _clipped(block[:, k], self.full_scale) for k in range(self.channels)
                )
            self.mono_squares += float(np.square(mono, dtype=np.float64).sum())
            self.silent += silent_samples(mono, self.rate)
            self.digest.update(np.ascontiguousarray(block).data)
            yield mono


def _clipped(channel: NDArray[np.float32], full_scale: float) -> int:
    """Samples beyond full scale, and those at it beside another one that is: the peak of a waveform
    that was made to fit is there alone."""
    at = np.abs(channel) >= full_scale
    both = at[1:] & at[:-1]
    flat = np.abs(channel) > 1
    flat[1:] |= both
    flat[:-1] |= both
    return int(flat.sum())
