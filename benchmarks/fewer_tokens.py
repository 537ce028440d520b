"""What dropping half of the audio tokens saves: BEATs-base, a whole step, and a padded batch.

    python -m benchmarks.fewer_tokens [--device cuda]

The towers are those of a momentum step: forward and backward of one, and forward of its copy.
Random weights, in training mode, noise of 10 s. 16 clips take 17 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.data.loading.plan import by_length, epoch_order, padding
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.model.patch_dropout import PatchDropoutConfig
from atr_moco_plugin.momentum import MomentumCopy
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.step import TINY, fill, make_batch, one_step

HALF = PatchDropoutConfig()
ONLINE = PatchDropoutConfig(momentum="whole")


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    b, seconds = (2, 2.0) if tiny else (16, 10.0)
    torch.manual_seed(0)
    model = build_model(model_config(TINY if tiny else {})).to(device).train()
    waveforms = make_batch(b, seconds, device)["audio"]["waveforms"]
    rounds = 1 if tiny else 3
    encoder, copy = model.audio.encoder, MomentumCopy(model.audio.encoder)
    features = encoder.features(waveforms)
    kept = encoder.draw_patches(waveforms, time=HALF.time, bands=HALF.bands)
    dropped = features._replace(kept=kept)
    ways = [partial(_pass, encoder, None, dropped), partial(_pass, encoder, None, features)]
    ways += [partial(_pass, encoder, copy, dropped), partial(_pass, encoder, copy, features)]
    half, whole, both, both_whole = harness.fastest(ways, device, rounds=rounds)
    tokens = f"{len(kept)} of {features.mask.size(1)} tokens, {b} clips of {seconds:g} s"
    error = _error(encoder, features, kept)
    for name, ours, baseline in (
        (
            "in both towers: encoder, forward and backward, and forward of its copy",
            both,
            both_whole,
        ),
        ("in one tower: encoder, forward and backward", half, whole),
    ):
        yield Row(
            name=f"{tokens}, {name}",
            baseline_name="every token",
            ours=ours,
            baseline=baseline,
            error=error,
            error_name="states in eval mode, of those where the others are no keys",
            target=0.5,
            cost=True,
        )
    del copy
    yield from _steps(machine, model, 4 if not tiny else 2, seconds, rounds)
    yield from _bucketing(machine, model.audio.encoder, tiny)


def _pass(encoder: Any, copy: nn.Module | None, features: Any) -> None:
    encoder(features=features).states.square().mean().backward()
    if copy is not None:
        copy(features=features)
    encoder.zero_grad()


@torch.no_grad()
def _error(encoder: Any, features: Any, kept: Tensor) -> float:
    """Largest difference to masked attention over all tokens, of one clip."""
    encoder.eval()
    one = features._replace(fbank=features.fbank[:1], mask=features.mask[:1])
    states = encoder(features=one._replace(kept=kept)).states
    # The lowest layers see the whole: positions come before them.
    x = encoder.lower(features=one, layers=0).states
    mask = torch.zeros_like(one.mask)
    mask[:, kept] = True
    expected = encoder.encoder.run(x, mask)[:, kept]
    encoder.train()
    return float((states - expected).abs().max() / expected.abs().max())


def _steps(
    machine: Machine, model: RetrievalModel, b: int, seconds: float, rounds: int
) -> Iterator[Row]:
    """Whole steps of one model, whose dropout is set before each."""
    device = machine.device
    batch = make_batch(b, seconds, device)
    kinds = (
        (MocoAtc, MocoAtcConfig(queue_size=4_096)),
        (MocoAtcAtm, MocoAtcAtmConfig(queue_size=4_096, atm_start=0)),
    )
    for kind, config in kinds:
        criterion = kind(model, config).to(device).train()
        fill(criterion, batch)
        optimizer = AdamW(criterion.parameters(), lr=1e-6, fused=True)

        def step(
            way: PatchDropoutConfig | None,
            criterion: MocoAtc = criterion,
            optimizer: AdamW = optimizer,
        ) -> None:
            for tower in (criterion.model.audio, criterion.audio_m.module):
                tower.patch_dropout = way
            one_step(criterion, optimizer, batch)

        ways = [partial(step, way) for way in (HALF, ONLINE, None)]
        both, online, whole = harness.fastest(ways, device, rounds=rounds)
        name = "moco_atc_atm" if kind is MocoAtcAtm else "moco_atc"
        for towers, ours in (("both towers", both), ("the online tower", online)):
            yield Row(
                name=f"half of the tokens in {towers}: step of {name}, B {b}",
                baseline_name="every token",
                ours=ours,
                baseline=whole,
                cost=True,
            )
        del criterion, optimizer
        model.audio.patch_dropout = None


def _bucketing(machine: Machine, encoder: Any, tiny: bool) -> Iterator[Row]:
    """An epoch's first steps of clips that last 1 to 10 s, by length and not."""
    b, steps = (2, 2) if tiny else (8, 3)
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1, 10, 100 * b).astype(np.float32)
    drawn = epoch_order(len(seconds), shuffle=True, seed=0, epoch=0)
    lengths = np.ceil(seconds / 0.25).astype(np.int64)
    sorted_ = by_length(drawn, lengths, step=b, steps=50, seed=0, epoch=0)

    def epoch(order: Sequence[int]) -> None:
        for start in range(0, b * steps, b):
            counts = torch.from_numpy(seconds[order[start : start + b]] * 16_000).long()
            waveforms = torch.randn(b, int(counts.max()), device=machine.device) * 0.1
            encoder(waveforms, counts).states.square().mean().backward()
            encoder.zero_grad()

    # As many clips of the same kind: those of the two orders are others, so the padding of the
    # whole epoch is what the seconds are scaled with.
    shares = [padding(order, seconds, b, 1) for order in (sorted_, drawn)]
    ours, plain = harness.fastest(
        [partial(epoch, sorted_), partial(epoch, drawn)], machine.device, rounds=1
    )
    sound = [float(seconds[order[: b * steps]].sum(dtype=np.float64)) for order in (sorted_, drawn)]
    yield Row(
        name=f"by length, 50 steps at a time: encoder a second of sound, 1 to 10 s, {b} clips, "
        f"{shares[0]:.0%} padding",
        baseline_name=f"drawn order, {shares[1]:.0%} padding",
        ours=ours / sound[0],
        baseline=plain / sound[1],
        cost=True,
    )


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
