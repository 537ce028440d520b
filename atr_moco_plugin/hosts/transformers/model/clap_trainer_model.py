"""A criterion around a ``ClapModel``, in the form that transformers' ``Trainer`` trains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import ClapModel

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.learned_distance import learned_factor
from atr_moco_plugin.model import AdapterConfig, add_adapters
from atr_moco_plugin.model.adapters import merged_state
from atr_moco_plugin.model.clap import (
    ClapAudioTower,
    ClapTextTower,
    TowerPair,
    clap_temperature,
)
from atr_moco_plugin.model.freezing import Freeze, freeze_towers
from atr_moco_plugin.plugins import load


class ClapTrainerModel(TrainerModel):
    """A criterion around a ``ClapModel``, with a fusion head where the criterion matches.

    The model's own modules are trained, so ``clap`` has the trained weights at any time. CLAP
    stores the logarithm of ``1 / tau`` once for each direction; the criterion learns one ``tau``,
    which starts at the geometric mean of the two and is written back by :meth:`save_pretrained`.

    Args:
        clap: the model, with its pretrained weights loaded: the momentum copies are made now.
        criterion: name in the group ``atr_moco_plugin.criteria``.
        head: size of the fusion head, for a criterion that matches.
        chunk_size: see :class:`TrainerModel`. Its audio encoder has a batch norm, so it has to be
            in eval mode, as a frozen one is.
        freeze: by tower, what of its encoder stands still, such as ``{"audio": "all", "text": 6}``,
            see :func:`~atr_moco_plugin.model.freeze_encoder`; layers of the audio encoder, a Swin
            transformer, are its stages. The projections train.
        adapter: by tower, ``audio`` or ``text``, adapters to train in place of its encoder's own
            weights. They are then in the modules of ``clap``.
        options: fields of the criterion's configuration, such as ``queue_size``. ``temperature``
            is read from the model where it is not given and the criterion learns it.
    """

    def __init__(
        self,
        clap: ClapModel,
        criterion: str = "moco_atc_atm",
        *,
        head: FusionHeadConfig | None = None,
        chunk_size: int | None = None,
        freeze: Mapping[str, Freeze] | None = None,
        adapter: Mapping[str, AdapterConfig] | None = None,
        **options: object,
    ) -> None:
        audio, text = ClapAudioTower(clap), ClapTextTower(clap)
        freeze_towers({"audio": audio, "text": text}, freeze or {})
        for name, config in (adapter or {}).items():
            if name not in ("audio", "text"):
                raise InputError(f"`adapter` is for {name!r}, expected audio or text.")
            add_adapters(audio if name == "audio" else text, config, f"adapter.{name}")
        criterion_class = load("criteria", criterion)
        matches = "loss_atm" in criterion_class.measures
        fusion = FusionHead(text, audio.width, head) if matches else None
        pair = TowerPair(audio, text, fusion, clap.config.projection_dim)
        if getattr(criterion_class, "learns_temperature", True):
            options = {**_start(clap, criterion_class.config_class, options), **options}
        super().__init__(pair, criterion, chunk_size=chunk_size, **options)
        # In a tuple, so that it is not a submodule: every weight would have two names.
        self._clap = (clap,)

    @property
    def clap(self) -> ClapModel:
        """The model itself, with the current online weights, temperature and adapters. It keeps
        its own temperature where the criterion learns none."""
        (clap,) = self._clap
        if not getattr(self.criterion, "learns_temperature", True):
            return clap
        log_scale = -float(self.criterion.temperature.detach().log())
        with torch.no_grad():
            clap.logit_scale_a.fill_(log_scale)
            clap.logit_scale_t.fill_(log_scale)
        return clap

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a plain ``ClapModel`` folder, for ``ClapModel.from_pretrained``: the online weights
        with adapters merged, without head, momentum copies and queues. A warning says so where a
        distance was learned, which such a folder cannot hold.

        Args:
            folder: created where it does not exist.
        """
        if learned_factor(self.criterion) is not None:
            warnings.warn(
                f"A ClapModel ranks by cosine, and {folder} is without the distance that "
                f"{self.criterion_name} has learned: `atr-moco export` makes a bundle that ranks "
                "by it.",
                stacklevel=2,
            )
        clap = self.clap
        clap.save_pretrained(folder, state_dict=merged_state(clap.state_dict()))


def _start(clap: ClapModel, config_class: Any, options: Mapping[str, object]) -> dict[str, float]:
    """The option of the temperature, where there is one: that of the model, within the
    criterion's range."""
    if "temperature" not in {field.name for field in fields(config_class)}:
        return {}
    low, high = TEMPERATURE_RANGE
    least = options.get("temperature_min", getattr(config_class, "temperature_min", low))
    if isinstance(least, int | float):  # else it is refused with the other options
        low = min(max(least, low), high)
    return {"temperature": min(max(clap_temperature(clap), low), high)}
