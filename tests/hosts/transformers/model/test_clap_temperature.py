"""Where the temperature of a criterion around a pretrained ``ClapModel`` starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from trainer_world import HEAD, make_batch, make_clap

from atr_moco_plugin.hosts.transformers import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.model import clap_trainer_model, trainer_model


@pytest.mark.parametrize(("least", "start"), [(0.05, 0.05), (0.01, 0.02)])
def test_a_start_below_the_least_temperature_is_raised_to_it(least: float, start: float) -> None:
    clap = make_clap()
    for scale in (clap.logit_scale_a, clap.logit_scale_t):
        scale.data.fill_(math.log(50))
    model = ClapTrainerModel(clap, "moco_atc", queue_size=8, temperature_min=least)
    assert model.criterion.temperature.item() == pytest.approx(start)


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


def test_a_criterion_needs_no_option_for_its_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clap_trainer_model, trainer_model):
        monkeypatch.setattr(module, "load", lambda *_: Sharp)
    model = ClapTrainerModel(make_clap(), "sharp", head=HEAD).eval()
    assert model.criterion.temperature.item() == pytest.approx(0.1)
    assert model(**make_batch())["loss"].isfinite()
