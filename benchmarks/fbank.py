"""The filterbank of a batch of clips of 10 s, beside torchaudio's of one after the other.

python -m benchmarks.fbank [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from atr_moco_plugin.encoders.beats.fbank import fbank
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.plain_beats import plain_fbank


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    cuda = device.type == "cuda"
    clips, samples = (2, 4_000) if tiny else (64 if cuda else 8, 160_000)
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.randn(clips, samples, generator=generator).to(device) * 0.1
    features = fbank(waveforms)
    frames = features.size(0) * features.size(1)
    # A real transform of 512 samples, and the 129 bands' triangles, which overlap by one.
    flops = frames * (2.5 * 512 * 9 + 2 * 2 * 257)
    seconds = harness.fastest(
        [lambda: fbank(waveforms), lambda: plain_fbank(waveforms)],
        device,
        rounds=3 if tiny else 20,
    )
    yield Row(
        name=f"fbank of {clips} clips of 10 s",
        baseline_name="torchaudio.compliance.kaldi.fbank, clip by clip",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(flops=flops, moved=waveforms.nbytes + features.nbytes),
        floor_name="a Fourier transform a frame at the rate of a matrix product, or one read and "
        "one write",
        error=harness.largest_error(features, plain_fbank(waveforms)),
        error_name="features",
        target=20.0 if cuda else 3.0,
    )


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
