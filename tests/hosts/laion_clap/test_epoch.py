"""What a training with LAION-CLAP does before its first step, and what its checkpoints have."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_clap import Clap, criterion_clap, follow

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.hosts.laion_clap.model import add_criterion


def test_queues_stay_within_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    """``queue_size: auto`` had no such limit here."""
    clap = criterion_clap(queue_size="auto", queue_min=8)
    follow(clap, {})
    assert clap.moco._growth_limit == 12
    assert "stale copies" not in caplog.text
    follow(criterion_clap(queue_size=13), {})
    assert "The queue has 13 rows, but an epoch has 12 pairs" in caplog.text


def test_what_is_frozen_is_saved_once_and_loaded(recwarn: pytest.WarningsRecorder) -> None:
    """HTSAT's filters are frozen: ``--resume`` missed them in the momentum copies."""

    def frozen() -> Any:
        clap = Clap()
        clap.audio_branch.layer.bias.requires_grad_(False)
        return add_criterion(clap, MocoAtc, MocoAtcConfig(queue_size=8, momentum=0.5)).train()

    whole, again = frozen(), frozen()
    follow(whole, {})
    state = whole.state_dict()
    assert "moco.audio_m.module.branch.layer.bias" not in state
    for prefix in ("", "module."):  # of DDP
        holder = torch.nn.ModuleDict({"module": again}) if prefix else again
        holder.load_state_dict({f"{prefix}{name}": x for name, x in state.items()})
    for name, x in again.state_dict().items():
        assert torch.equal(x, state[name]), name
    copy = again.moco.audio_m.module.branch.layer
    assert copy.bias is again.audio_branch.layer.bias
    assert not torch.equal(copy.weight, again.audio_branch.layer.weight)
    assert not any("no momentum copy" in str(x.message) for x in recwarn)


@pytest.mark.parametrize(("schedule", "told"), [("cosine", True), ("constant", False)])
def test_another_length_is_warned_of_where_a_schedule_goes_by_it(
    schedule: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    options = {"momentum_schedule": schedule}
    clap = criterion_clap(**options)
    follow(clap, {}, logs=str(tmp_path))
    resume = {"resume": str(tmp_path / "x" / "checkpoints" / "epoch_1.pt"), "logs": str(tmp_path)}
    follow(criterion_clap(**options), {}, **resume, name="same")
    assert "goes on with" not in caplog.text
    follow(criterion_clap(**options), {}, **resume, name="longer", epochs=3)
    said = "The run was to have 6 steps and goes on with 9, which moves what goes by its length: "
    assert (f"{said}the momentum factor (`momentum_schedule: cosine`)" in caplog.text) == told
    # From here on 9 is its length.
    caplog.clear()
    resume["resume"] = str(tmp_path / "longer" / "checkpoints" / "epoch_2.pt")
    follow(criterion_clap(**options), {}, **resume, name="again", epochs=3)
    assert "goes on with" not in caplog.text
