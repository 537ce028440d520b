"""Choices of how long and how fast is trained: epochs, the queue, averages, learning rates."""

from __future__ import annotations

import math

from atr_moco_plugin.finetuning.choices import FREEZE, Choices
from atr_moco_plugin.finetuning.facts import Facts, PartFacts
from atr_moco_plugin.finetuning.steps import WITH_COPIES, has_copies, matches, pairs_a_step

_LARGE = 20_000_000
"""Parameters of an encoder from which random weights need a small learning rate."""


def epochs_for(facts: Facts) -> tuple[int, str]:
    """Epochs, and why: 20 for 500 clips, and by the inverse square root for others."""
    epochs = min(30, max(3, round(20 * math.sqrt(500 / facts.clips))))
    if not (facts.audio.pretrained and facts.text.pretrained):
        epochs = epochs * 3 // 2
        return epochs, f"every clip {epochs} times, half as often again from random weights"
    return epochs, f"every clip {epochs} times, fewer for more clips"


def criterion_options(
    criterion: str, facts: Facts, choices: Choices, batch: int, steps: int
) -> None:
    """Choose options of the criterion, of one of this package."""
    if criterion == "atc" and facts.distinct_captions < facts.captions:
        choices.make(
            "criterion.config.positives",
            "clip_or_caption",
            "captions are said of several clips, which all are positives",
        )
    if criterion not in WITH_COPIES:
        return
    if matches(criterion) and facts.head_trained:
        reason = "the matching head of the start is trained and can go on at once"
        choices.make("criterion.config.atm_start", 0, reason)
    rows = min(65_536, facts.clips // 2, facts.distinct_captions)
    # Of fewer than 8 rows `auto` below cannot tell the age.
    size = 1 << rows.bit_length() - 1 if rows >= max(2 * batch, 8) else 0
    size = choices.make(
        "criterion.config.queue_size",
        size,
        "half the training clips at most, so that a clip meets few old copies of itself"
        if size
        else "a queue would hold little more than a batch, or the same captions again and again",
    )
    random = not (facts.audio.pretrained and facts.text.pretrained)
    choices.make(
        "criterion.config.queue_warmup_steps",
        "auto" if random and size else 0,
        "there is no queue"
        if not size
        else "random weights drift fast at first; it waits until its rows do not tell their age"
        if random
        else "the weights drift slowly from the start",
    )
    if not has_copies(choices):
        return
    horizon = min(200, max(5, steps // 20))
    momentum, digits = 1 - 1 / horizon, 4
    if choices.value("criterion.config.momentum_per") == "pair":
        momentum, digits = momentum ** (1 / pairs_a_step(facts, choices, batch)), 8
    choices.make(
        "criterion.config.momentum",
        round(momentum, digits),
        f"the copies follow within {horizon} steps, a small part of the run",
    )
    if choices.value("criterion.config.alpha") == 0:
        return  # without soft targets
    choices.make(
        "criterion.config.alpha_warmup_steps",
        steps // 2 if random else steps // 4,
        "the copies' soft targets are worth something only later",
    )


def rates(facts: Facts, choices: Choices) -> None:
    """Choose the learning rates of the two encoders and of the rest."""
    new = 1e-4 if facts.together else 1e-3
    why = "are trained on" if facts.together else "start at random"
    choices.make("optimizer.config.lr", new, f"the projections {why}")
    for part, fine in (("audio", 5e-5), ("text", 3e-5)):
        encoder: PartFacts = facts.part(part)
        key = f"optimizer.config.{part}_lr"
        if choices.adapts(part):
            choices.make(key, 3e-4, "the adapter is small and new")
        elif choices[FREEZE[part]] == "all":
            if key in choices.given:
                choices.make(key, fine, "the encoder is frozen")
        elif encoder.pretrained:
            choices.make(key, fine, "a pretrained encoder moves slowly")
        elif encoder.parameters > _LARGE:
            choices.make(key, 1e-4, "a large encoder with random weights diverges at higher rates")
        else:
            choices.make(key, 1e-3, "a small encoder with random weights")
