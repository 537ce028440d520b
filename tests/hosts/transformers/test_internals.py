"""What ``Trainer``, accelerate and transformers' models do not document still works.

Where a test fails, a release has moved something. All such names are in
``atr_moco_plugin/hosts/transformers/internals.py``: find the new name in the release's source and
change that one function. The docstring of each test says what goes wrong otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from trainer_world import HEAD, make_batch, make_clap, make_trainer
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.modeling_layers import GradientCheckpointingLayer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.internals import (
    checkpoint_layers,
    log_beside,
    saved_beside,
    shards_weights,
    torch_optimizer,
)


def test_the_optimizer_in_an_accelerated_one_is_found() -> None:
    """Otherwise hooks would sit on accelerate's wrapper, which torch never calls: the momentum
    copies would not move and NaN would pass. Look at ``AcceleratedOptimizer``."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    assert torch_optimizer(optimizer) is optimizer
    assert torch_optimizer(Accelerator(cpu=True).prepare_optimizer(optimizer)) is optimizer


def test_a_log_of_ours_leaves_the_log_of_the_trainer_due(tmp_path: Path) -> None:
    """Otherwise ``Trainer`` would not log its own loss in the steps in which the criterion's
    measures are logged. Look at what ``Trainer.log`` does to ``control``."""
    trainer = make_trainer(tmp_path)
    control: TrainerControl = trainer.control
    control.should_log = True
    log_beside(trainer, control, {"loss_atm": 1.0})
    assert control.should_log
    assert trainer.state.log_history[-1]["loss_atm"] == 1.0


def test_a_trainer_says_whether_it_shards_weights(tmp_path: Path) -> None:
    """Otherwise FSDP and DeepSpeed would not be refused. Look for ``is_fsdp_enabled`` in
    ``Trainer.__init__``."""
    trainer = make_trainer(tmp_path)
    assert not shards_weights(trainer)
    trainer.is_fsdp_enabled = True
    assert shards_weights(trainer)


def test_what_is_saved_beside_is_in_the_checkpoints_of_a_training_that_goes_on(
    tmp_path: Path,
) -> None:
    """Otherwise a training would go on with other options of the criterion without a word. Look at
    how ``TrainerState`` and ``Trainer._save_checkpoint`` keep ``stateful_callbacks``."""

    class Note(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            saved_beside(state).setdefault("note", {"since": state.global_step})

    options = {"save_strategy": "steps", "save_steps": 2}
    for start in (None, str(tmp_path / "checkpoint-2")):
        trainer = make_trainer(tmp_path, **options)
        trainer.add_callback(Note())
        trainer.train(resume_from_checkpoint=start)
        state = TrainerState.load_from_json(str(tmp_path / "checkpoint-4" / "trainer_state.json"))
        assert saved_beside(state)["note"] == {"since": 0}


def test_layers_compute_again_in_the_backward_pass() -> None:
    """Otherwise ``gradient_checkpointing=True`` would save no memory. Look at
    ``GradientCheckpointingLayer.__call__``."""
    passes = []

    class Layer(GradientCheckpointingLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            passes.append(1)
            return x * x

    tower = nn.Sequential(Layer(), nn.Identity()).train()
    checkpoint_layers(tower, "audio", {}, but=lambda layer: False)
    tower(torch.ones(1, requires_grad=True)).backward()
    assert len(passes) == 2
    with pytest.raises(InputError, match="no layer of the audio tower"):
        checkpoint_layers(nn.Linear(1, 1), "audio", {}, but=lambda layer: False)


def test_the_encoder_of_clap_has_the_width_of_its_configuration() -> None:
    """Otherwise the matching head would be made for tokens of another width. Look for the number
    of channels of ``ClapAudioModel``'s ``last_hidden_state``."""
    tower = ClapTrainerModel(
        make_clap(), head=HEAD, atm_start=0, queue_size=4
    ).criterion.model.audio
    _, tokens = tower(make_batch()["input_features"])
    assert tokens.states.shape[2] == tower.width
