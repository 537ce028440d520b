"""Where the temperature of a criterion around a pretrained ``ClapModel`` starts."""

from __future__ import annotations

import math

import pytest
from sharp_criterion import Sharp
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


def test_a_criterion_needs_no_option_for_its_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clap_trainer_model, trainer_model):
        monkeypatch.setattr(module, "load", lambda *_: Sharp)
    model = ClapTrainerModel(make_clap(), "sharp", head=HEAD).eval()
    assert model.criterion.temperature.item() == pytest.approx(0.1)
    assert model(**make_batch())["loss"].isfinite()
