"""The sizes of a fine-tuning, chosen from the data and the machine, each with its reason.

For example, with 240 clips::

    plan = make_plan(facts, given={"dataset.batch_size": 16})
    print(plan.text())
    plan.options()["regime"]["num_steps"]

Keys are those of a recipe's configuration. A value that the user has set is kept, and what follows
from it is chosen to fit it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from atr_moco_plugin.finetuning.choices import (
    FREEZE,
    Choice,
    Choices,
    nested,
    number_of,
    shown,
)
from atr_moco_plugin.finetuning.facts import Facts
from atr_moco_plugin.finetuning.fitting import (
    CACHE,
    batch_size_for,
    criterion_for,
    freeze_for,
    freeze_for_time,
    max_seconds_for,
    planned_seconds,
)
from atr_moco_plugin.finetuning.schedule import criterion_options, epochs_for, rates
from atr_moco_plugin.finetuning.steps import captions_each, matches, pairs_a_step
from atr_moco_plugin.io.stdout import duration


@dataclass(frozen=True)
class Plan:
    """What :func:`make_plan` has chosen.

    Attributes:
        facts: what it was chosen from.
        choices: the values, in the order of the configuration.
        seconds: about how long the training takes, ``None`` where nothing was measured.
        seconds_kept: the same with the outputs of frozen encoders kept, where that is shorter and
            can be had.
    """

    facts: Facts
    choices: tuple[Choice, ...]
    seconds: float | None = None
    seconds_kept: float | None = None

    def __getitem__(self, key: str) -> Any:
        """The value of a key.

        Raises:
            KeyError: for a key that the plan does not choose.
        """
        return {choice.key: choice.value for choice in self.choices}[key]

    def __contains__(self, key: object) -> bool:
        return any(choice.key == key for choice in self.choices)

    def options(self) -> dict[str, Any]:
        """The values as a nested mapping, to be merged into a recipe's configuration."""
        return nested({choice.key: choice.value for choice in self.choices})

    def text(self) -> str:
        """The plan as it is shown before training: a line for each value, with its reason."""
        lines = [plan_text(self.choices)]
        if self.seconds is not None:
            lines.append(f"  The training takes about {duration(self.seconds)}.")
        if self.seconds_kept is not None:
            lines.append(
                f"  With {CACHE}=FOLDER, which keeps what frozen encoders make of each clip, it "
                f"takes about {duration(self.seconds_kept)}."
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The plan with the facts behind it, to be saved as JSON."""
        return {
            "facts": asdict(self.facts),
            "choices": [asdict(choice) for choice in self.choices],
            "seconds": self.seconds,
        }


def plan_text(choices: Sequence[Choice]) -> str:
    """A line for each value, with its reason."""
    width = max(len(choice.key) for choice in choices)
    return "\n".join(f"  {x.key:<{width}}  {shown(x.value):>10}  {x.reason}" for x in choices)


def make_plan(facts: Facts, given: Mapping[str, Any] | None = None) -> Plan:
    """Choose the sizes of a fine-tuning.

    Args:
        facts: the data, the model and the machine.
        given: values that the user has set, by dotted key (see
            :func:`~atr_moco_plugin.finetuning.choices.flattened`).

    Returns:
        The plan. Options of a criterion of another package are left to that criterion.
    """
    choices = Choices(dict(given or {}))
    _choose(facts, choices)
    seconds, kept = (planned_seconds(facts, choices, kept=kept) for kept in (False, True))
    if seconds is None or kept is None or not facts.keeps or kept > 0.8 * seconds:
        kept = None
    return Plan(facts, tuple(choices.made.values()), seconds, kept)


def _choose(facts: Facts, choices: Choices) -> None:
    criterion = str(choices.make("criterion.name", *criterion_for(facts)))
    for part in ("audio", "text"):
        choices.make(FREEZE[part], *freeze_for(part, facts, choices))
    choices.make("dataset.max_seconds", *max_seconds_for(facts))
    freeze_for_time(facts, choices)
    batch = number_of(choices.make("dataset.batch_size", *batch_size_for(facts, choices)), 2)
    epochs, reason = epochs_for(facts)
    clips_a_step = pairs_a_step(facts, choices, batch) / captions_each(choices)
    an_epoch = max(1, math.ceil(facts.clips / clips_a_step))
    # Tens, so that the last of ten validations sees the end of the run.
    wanted = math.ceil(epochs * an_epoch / 10) * 10
    steps = min(50_000, max(100, wanted))
    reason = f"{reason}, in batches of {batch}"
    if steps != wanted:
        reason = f"the {'least' if steps > wanted else 'most'} that is planned, not {reason}"
    steps = number_of(choices.make("regime.num_steps", steps, reason), 1)
    criterion_options(criterion, facts, choices, batch, steps)
    rates(facts, choices)
    choices.make(
        "lr_scheduler.config.num_warmup_steps",
        max(1, steps // 10) if steps > 1 else 0,
        "a tenth of the steps, so that the first gradients of what is new move little",
    )
    every = max(1, math.ceil(steps / 10))
    reason = "up to ten times in the run; the checkpoint with the best validation is kept"
    if not facts.valid_clips:
        every, reason = steps, "once, since there is no validation split"
    choices.make("regime.validate_every_n_steps", every, reason)
    choices.make(
        "regime.checkpoint_every_n_steps",
        choices["regime.validate_every_n_steps"],
        "with each validation",
    )
    candidates, reason = 0, "no matching head is trained"
    if matches(criterion):
        candidates, reason = 16, "candidates of each query that the matching head orders anew"
    choices.make("evaluation.rerank_k", candidates, reason)
