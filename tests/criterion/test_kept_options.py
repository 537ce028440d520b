"""What a run that goes on with another length is told."""

from __future__ import annotations

from typing import Any

import pytest
from linear import LinearModel

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    SogClr,
    SogClrConfig,
)
from atr_moco_plugin.criterion.kept_options import other_length, steps_of_another_run


def momentum(schedule: Any) -> MocoAtc:
    return MocoAtc(LinearModel(), MocoAtcConfig(queue_size=8, momentum_schedule=schedule))


def matching(start: Any, since: int) -> MocoAtcAtm:
    criterion = MocoAtcAtm(LinearModel(), MocoAtcAtmConfig(queue_size=8, atm_start=start))
    criterion.matching_start._set(since)
    return criterion


def sogclr(steps: int) -> SogClr:
    criterion = SogClr(LinearModel(), SogClrConfig())
    criterion.num_steps.fill_(steps)
    return criterion


@pytest.mark.parametrize(
    ("criterion", "said"),
    [
        (momentum("constant"), None),
        (momentum("cosine"), "the momentum factor (`momentum_schedule: cosine`)"),
        (matching("auto", -1), "the first step that may match (`atm_start: auto`)"),
        (matching("auto", 5), None),
        (matching(50, -1), None),
        (sogclr(60), "gamma of `sogclr`"),
        (sogclr(80), None),  # it is at its end in both
        (Atc(LinearModel(), AtcConfig()), None),
    ],
)
def test_what_goes_by_the_length_of_a_run_is_named(criterion: Any, said: str | None) -> None:
    assert other_length(criterion, None, 150) is None  # an earlier version did not keep it
    assert other_length(criterion, 150, 150) is None
    found = other_length(criterion, 100, 150)
    assert (found is None) == (said is None)
    if said is not None:
        assert found == (
            "The run was to have 100 steps and goes on with 150, which moves what goes by its "
            f"length: {said}. Give it 100 again for the schedule that it began with."
        )


def test_steps_of_an_earlier_training_are_told_where_the_length_counts() -> None:
    for criterion, said in (
        (momentum("cosine"), "momentum factor"),
        (matching("auto", -1), "first step that may match"),
        (momentum("constant"), None),
        (matching(50, -1), None),
        (sogclr(0), "gamma of `sogclr`"),
    ):
        criterion.num_steps.fill_(100)
        assert steps_of_another_run(criterion, 100, 150) is None  # resumed
        assert steps_of_another_run(criterion, 105, 150) is None  # five were left out
        found = steps_of_another_run(criterion, 0, 20)
        assert (found is None) == (said is None)
        assert said is None or (said in found and "made 100 steps, but this run of 20" in found)
