"""Where the temperature of a criterion around LAION's model starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from toy_clap import Clap

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.hosts.laion_clap.model import add_criterion


@dataclass(kw_only=True)
class SharpConfig:
    sharpness: float = 10.0


class Sharp(nn.Module):
    """A criterion of a third party, whose temperature has no option."""

    config_class = SharpConfig
    measures = ("loss",)

    def __init__(self, model: nn.Module, config: SharpConfig) -> None:
        super().__init__()
        self.model, self.config, self.queues = model, config, dict[str, Any]()
        self.temperature = nn.Parameter(torch.tensor([1 / config.sharpness]))

    def on_optimizer_step(self) -> None:
        pass


def test_a_start_below_the_least_temperature_is_raised_to_it() -> None:
    clap = Clap()
    clap.logit_scale_a.data.fill_(math.log(50))
    clap = add_criterion(clap, MocoAtc, MocoAtcConfig(queue_size=8, temperature_min=0.05))
    assert clap.moco.temperature.item() == pytest.approx(0.05)


def test_a_criterion_needs_no_option_for_its_temperature() -> None:
    clap: Any = add_criterion(Clap(), Sharp, SharpConfig())  # type: ignore[arg-type]
    assert clap.moco.temperature.item() == pytest.approx(0.1)
