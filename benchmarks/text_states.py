"""The cost of caption token states that the matching head does not read (BLIP's fusion).

    python -m benchmarks.text_states [--device cuda]

The baseline is a head that asks for the states. Captions have 20 tokens of width
768: 4,875 of them in re-ranking, as in AudioCaps' test set, and 64 in a training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.tokens import TextTokens, take_tokens
from benchmarks import harness
from benchmarks.harness import Machine, Row

LENGTH, WIDTH = 20, 768


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    captions, of_clip, batch = (30, 6, 4) if tiny else (4_875, 600, 64)
    both = [_encoded(captions, device, states=states) for states in (True, False)]
    chosen = torch.randperm(captions, generator=torch.Generator().manual_seed(1))[:of_clip]
    baseline, ours = harness.fastest(
        [lambda kept=kept: kept.text_tokens(chosen) for kept in both], device
    )
    plain, found = (kept.text_tokens(chosen) for kept in both)
    yield Row(
        name=f"tokens of {of_clip} captions to the device, for the pairs of a clip",
        baseline_name="with their states",
        ours=ours,
        baseline=baseline,
        error=harness.largest_error(found.input_ids, plain.input_ids),
        error_name="ids",
        target=10.0,
    )
    yield Row(
        name=f"memory of {captions:,} captions while they are re-ranked",
        baseline_name="with their states",
        ours=_mib(found) * captions / of_clip,
        baseline=_mib(plain) * captions / of_clip,
        target=0.05,
        cost=True,
        unit="MiB",
    )
    step = [_step(batch, device, states=True), _step(batch, device, states=False)]
    baseline, ours = harness.fastest([run for run, _ in step], device)
    yield Row(
        name=f"captions of the {3 * batch} pairs of a training step chosen",
        baseline_name="with their states",
        ours=ours,
        baseline=baseline,
        target=5.0,
    )
    yield Row(
        name=f"memory of the captions of the {3 * batch} pairs of a training step",
        baseline_name="with their states",
        ours=step[1][1],
        baseline=step[0][1],
        target=0.05,
        cost=True,
        unit="MiB",
    )


def _tokens(captions: int, *, states: bool) -> TextTokens:
    mask = torch.ones(captions, LENGTH, dtype=torch.bool)
    ids = torch.arange(captions * LENGTH).view(captions, LENGTH)
    return TextTokens(torch.randn(captions, LENGTH, WIDTH) if states else None, mask, ids)


def _encoded(captions: int, device: torch.device, *, states: bool) -> Encoded:
    encoded = Encoded()
    for rows_of_batch in torch.arange(captions).split(64):
        embeddings = F.normalize(torch.randn(len(rows_of_batch), 8, device=device), dim=1)
        encoded.add(embeddings, _tokens(len(rows_of_batch), states=states))
    return encoded


def _step(
    batch: int, device: torch.device, *, states: bool
) -> tuple[Callable[[], TextTokens], float]:
    """How a step takes the captions of its pairs, and the MiB of what it takes."""
    tokens = TextTokens(
        *(None if x is None else x.to(device) for x in _tokens(batch, states=states))
    )
    pairs = torch.arange(3 * batch, device=device) % batch
    return lambda: take_tokens(tokens, pairs), _mib(take_tokens(tokens, pairs))


def _mib(tokens: TextTokens) -> float:
    kept: list[Tensor] = [x for x in tokens if x is not None]
    return sum(x.nbytes for x in kept) / 2**20


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
