"""What is not finite in a step, as found on each process, and the sentences that say so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

import torch

from atr_moco_plugin.distributed import gather
from atr_moco_plugin.errors import listed

NAMED = 8
"""Clips, gradients and weights that a message names; of more it gives the number."""


@dataclass(frozen=True)
class Fault:
    """What one process found in a step that is not finite.

    Attributes:
        process: its index.
        losses: values of its losses that are not finite.
        clips: clips of those batches, up to :data:`NAMED`.
        num_clips: number of all of them.
        rows: modality to the clips whose momentum embedding is not finite, up to :data:`NAMED`, the
            number of all of them, and of the rows they are among; of the batches of all processes.
        gradients: parameters whose gradients are not finite.
        state: weights and buffers that are not finite themselves.
        last_good: what to go on from; on process 0.
    """

    process: int
    losses: list[float]
    clips: list[str]
    num_clips: int
    rows: dict[str, tuple[list[str], int, int]]
    gradients: list[str]
    state: list[str]
    last_good: str


def gather_findings(finding: Fault, device: torch.device) -> list[Fault]:
    """The findings of all processes, in process order.

    Args:
        finding: of this process.
        device: where the process group exchanges tensors.
    """
    line = json.dumps(asdict(finding)).encode() + b"\n"
    every = gather(torch.tensor(list(line), dtype=torch.uint8, device=device))
    return [Fault(**json.loads(line)) for line in bytes(every.tolist()).splitlines()]


def describe(findings: Sequence[Fault], step: int) -> str:
    """What happened, for a person.

    Args:
        findings: of all processes.
        step: number of the optimizer step.
    """
    return " ".join([_beginning(findings, step), *_causes(findings)])


def advice(findings: Sequence[Fault]) -> str:
    """What to do about it.

    Args:
        findings: of all processes.
    """
    if any(x.state for x in findings):
        return findings[0].last_good
    if any(0 < number < total for _, number, total in findings[0].rows.values()):
        return f"{findings[0].last_good} Listen to what these clips hold, and leave them out."
    return (
        f"{findings[0].last_good} Go on with a lower learning rate or gradient clipping, or look "
        "for a broken clip in the batch."
    )


def _beginning(findings: Sequence[Fault], step: int) -> str:
    bad = [x for x in findings if x.losses]
    if not bad:
        names = sorted({name for x in findings for name in x.gradients})
        return (
            f"The loss of step {step} is finite, but the gradient of {listed(names, NAMED)} is not."
        )
    where = ""
    if len(bad) < len(findings):
        where = f" on process(es) {', '.join(str(x.process) for x in bad)}"
    # A few of each process's, since one may have brought the fault into the embeddings of all.
    clips = [clip for row in zip_longest(*(x.clips for x in bad)) for clip in row if clip]
    named = listed(clips, NAMED, of=sum(x.num_clips for x in bad))
    return f"The loss of step {step} is {bad[0].losses[0]}{where}, in a batch of the clips {named}."


def _causes(findings: Sequence[Fault]) -> list[str]:
    said = []
    for modality, (clips, number, total) in findings[0].rows.items():
        if number == total > 0:
            said.append(f"All {modality} embeddings are NaN or infinite.")
        elif number:
            which = listed(clips, NAMED, of=number)
            said.append(f"NaN or infinite are the {modality} embeddings of {which}.")
    state = sorted({name for x in findings for name in x.state})
    if state:
        said.append(f"NaN or infinite before the step was made: {listed(state, NAMED)}.")
    return said
