"""The loss of an evaluation batch."""

from __future__ import annotations

import pytest
from trainer_world import (
    HEAD,
    make_batch,
    make_clap,
)

from atr_moco_plugin.hosts.transformers import (
    ClapTrainerModel,
)


def test_loss_of_an_evaluation_leaves_out_what_is_no_pair() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=4).eval()
    batch = make_batch(4)
    expected = model(**{name: value[:3] for name, value in batch.items()})["loss"]
    batch["clip_id"][3] = -100
    assert model(**batch)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    batch["clip_id"][:] = -100
    assert model(**batch)["loss"] == 0
