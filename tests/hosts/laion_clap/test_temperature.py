"""Where the temperature of a criterion around LAION's model starts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sharp_criterion import Sharp, SharpConfig
from toy_clap import Clap

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.hosts.laion_clap.model import add_criterion


def test_a_start_below_the_least_temperature_is_raised_to_it() -> None:
    clap = Clap()
    clap.logit_scale_a.data.fill_(math.log(50))
    clap = add_criterion(clap, MocoAtc, MocoAtcConfig(queue_size=8, temperature_min=0.05))
    assert clap.moco.temperature.item() == pytest.approx(0.05)


def test_a_criterion_needs_no_option_for_its_temperature() -> None:
    clap: Any = add_criterion(Clap(), Sharp, SharpConfig())  # type: ignore[arg-type]
    assert clap.moco.temperature.item() == pytest.approx(0.1)
