"""The criteria under transformers' ``Trainer``: a module to give it as the model, and a callback.

``Trainer`` is used as it is. :class:`ClapTrainerModel` puts a criterion around a ``ClapModel``,
:class:`TrainerModel` around any two towers; :class:`MocoCallback` does what has to happen between
optimizer steps and logs; :class:`ClapCollator` makes batches, :func:`compute_metrics` R@k, and
:func:`last_checkpoint` says what to resume from.
"""

from __future__ import annotations

from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator
from atr_moco_plugin.hosts.transformers.data.dataset import PairDataset
from atr_moco_plugin.hosts.transformers.model.clap_trainer_model import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.model.towers import AudioModelTower, TextModelTower
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.callback import MocoCallback
from atr_moco_plugin.hosts.transformers.trainer.metrics import TRAINING_ARGUMENTS, compute_metrics
from atr_moco_plugin.hosts.transformers.trainer.resume import last_checkpoint
from atr_moco_plugin.model.clap import ClapAudioTower, ClapTextTower, TowerPair

__all__ = [
    "TRAINING_ARGUMENTS",
    "AudioModelTower",
    "ClapAudioTower",
    "ClapCollator",
    "ClapTextTower",
    "ClapTrainerModel",
    "MocoCallback",
    "PairDataset",
    "TextModelTower",
    "TowerPair",
    "TrainerModel",
    "compute_metrics",
    "last_checkpoint",
]
