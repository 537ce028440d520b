"""What a step of the planned training holds and computes, from what was chosen so far."""

from __future__ import annotations

from atr_moco_plugin.criterion.matching_start import LAST_PART
from atr_moco_plugin.finetuning.choices import Choices, number_of
from atr_moco_plugin.finetuning.facts import Facts
from atr_moco_plugin.plugins import load

WITH_COPIES = ("moco_atc", "moco_atc_atm")
"""Criteria of this package with momentum copies and queues."""


def matches(criterion: str) -> bool:
    """Whether a criterion, of this package or another, trains the matching head.

    Raises:
        InputError: where there is no such criterion.
    """
    return "loss_atm" in load("criteria", criterion).measures


def has_copies(choices: Choices) -> bool:
    """Whether there are momentum copies."""
    online = choices.value("criterion.config.keys") == "online"
    return choices["criterion.name"] in WITH_COPIES and not online


def captions_each(choices: Choices) -> int:
    """Captions of each clip in a batch."""
    return number_of(choices.value("dataset.captions_per_clip") or 1, 1)


def pairs_a_step(facts: Facts, choices: Choices, batch: int) -> int:
    """Pairs of an optimizer step, over all processes and accumulated batches."""
    batches = number_of(choices.value("trainer.grad_accumulation.num_batches") or 1, 1)
    return batch * batches * facts.processes


def matching_share(facts: Facts, choices: Choices) -> float:
    """Share of the steps with a matching loss, the largest there can be."""
    if not matches(choices["criterion.name"]):
        return 0.0
    start = choices.value("criterion.config.atm_start")
    steps = choices.value("regime.num_steps")
    if start is None and facts.head_trained:
        share = 1.0  # the plan lets it go on at once
    elif start in (None, "auto"):
        share = LAST_PART
    elif steps is None:
        share = 1.0
    else:
        share = max(0.0, 1 - number_of(start, 0) / number_of(steps, 1))
    return share / number_of(choices.value("criterion.config.atm_every") or 1, 1)
