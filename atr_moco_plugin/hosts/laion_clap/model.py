"""A CLAP model that trains with a criterion of this package.

It is LAION's model with the criterion as one more submodule. The weights keep their names, so a
state dict has CLAP's entries and those under :data:`OWN`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion import TEMPERATURE_RANGE, Atc
from atr_moco_plugin.criterion.exchange import equal_buffers
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.hosts.laion_clap.ids import batch_ids
from atr_moco_plugin.hosts.laion_clap.internals import add_methods, audio_width, set_unregistered
from atr_moco_plugin.hosts.laion_clap.towers import ClapPair, audio_inputs
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.safety import FiniteGuard
from atr_moco_plugin.tensors.internals import exclude_from_ddp_broadcast

HEAD = "matching_head"
"""Name of the matching head as a submodule."""

OWN = ("moco", HEAD)
"""Submodules that are not CLAP's."""

POSITION_IDS = "text_branch.embeddings.position_ids"
"""A buffer that older transformers saved: models of today lack it, but ``CLAP_Module.load_ckpt``
asks for it."""

_MIN_TEMPERATURE = 0.01  # CLAP clips its scale to 100


class CriterionForward(nn.Module):
    """The methods that :func:`add_criterion` puts over LAION's model class."""

    moco: Atc
    logit_scale_a: nn.Parameter
    get_logit_scale: Callable[[], tuple[Tensor, Tensor]]

    measures: dict[str, Tensor]
    """The criterion's measures of the last training pass."""

    guard: FiniteGuard | None = None
    """Is shown every loss, so that all processes decide together where one is not finite."""

    def forward(self, audio: Any, text: Any, device: Any = None) -> Any:
        """In training CLAP's six outputs, of which the first is the loss: DDP finds the parameters
        that were used from the outputs. Otherwise CLAP's own result."""
        if not self.training or audio is None or text is None:
            return super().forward(audio, text, device)
        if self.guard is not None:
            self.guard.check_skipped_step()
        # Captions come padded to 77 tokens, of which most have a fifth.
        length = int(text["attention_mask"].sum(dim=1).max())
        clips, captions = batch_ids(audio, device)
        measures = self.moco(
            {"batch": audio_inputs(audio), "device": device},
            {k: v[:, :length].to(device, non_blocking=True) for k, v in text.items()},
            clips,
            captions,
        )
        if self.guard is not None:
            self.guard.watch(measures["loss"], clips)
        self.measures = {name: value.detach() for name, value in measures.items()}
        scales = (scale.detach() for scale in self.get_logit_scale())
        return (measures["loss"], None, None, None, *scales)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # What is frozen is saved once, under CLAP's name: `audio_branch.x` for `branch.x`. The
        # criterion has not got the towers among its modules and cannot fill it in itself.
        for name, copy in getattr(self.moco, "momentum_copies", {}).items():
            for shared in copy.shared_names(getattr(self.moco.model, name)):
                if (key := f"{prefix}{name}_{shared}") in state_dict:
                    state_dict[f"{prefix}moco.{name}_m.module.{shared}"] = state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """The criterion's queues, in which the guard sees the clips that are not finite."""
        return self.moco.queues

    def on_step_skipped(self) -> None:
        """Tell the criterion of a step that changed no weight."""
        if hasattr(self.moco, "on_step_skipped"):
            self.moco.on_step_skipped()

    def on_optimizer_step(self) -> None:
        """Move the momentum copies, and give CLAP's own scale the temperature's new value."""
        self.moco.on_optimizer_step()
        with torch.no_grad():
            # LAION-CLAP caps the scale after every step; the temperature agrees with it.
            if getattr(self.moco, "learns_temperature", True):
                self.moco.temperature.clamp_(min=_MIN_TEMPERATURE)
            self.logit_scale_a.copy_(-self.moco.temperature.squeeze().log())


def add_criterion(
    clap: Any, criterion_class: type[Atc], config: Any, head: FusionHeadConfig | None = None
) -> Any:
    """Make a CLAP model train with a criterion, in place.

    Call it after pretrained weights are loaded: the momentum copies and the temperature start
    from the model as it is.

    Args:
        clap: LAION's ``CLAP`` with BERT or RoBERTa.
        criterion_class: such as :class:`~atr_moco_plugin.criterion.MocoAtcAtm`.
        config: of ``criterion_class.config_class``; a temperature that is learned is replaced by
            CLAP's.
        head: size of the matching head, for a criterion that matches.

    Returns:
        ``clap``, which is a :class:`CriterionForward` too.
    """
    device = clap.logit_scale_a.device
    pair = ClapPair(clap, None)
    if "loss_atm" in criterion_class.measures:
        pair.head = FusionHead(pair.text, audio_width(clap), head).to(device)
        clap.matching_head = pair.head
    # A third party's criterion may have no such option.
    has_option = "temperature" in {field.name for field in dataclasses.fields(config)}
    if has_option and getattr(criterion_class, "learns_temperature", True):
        temperature = math.exp(-clap.logit_scale_a.item())
        low, high = getattr(config, "temperature_range", TEMPERATURE_RANGE)
        low = max(low, _MIN_TEMPERATURE)
        config = dataclasses.replace(config, temperature=min(max(temperature, low), high))
    criterion = criterion_class(pair, config)
    # The towers are in CLAP already.
    set_unregistered(criterion, "model", pair)
    clap.moco = criterion.to(device)
    add_methods(clap, CriterionForward)
    # Every process keeps the same, so DDP need not send it in each forward pass.
    exclude_from_ddp_broadcast(clap, equal_buffers(clap))
    return clap


def is_own(name: str) -> bool:
    """Whether an entry of a state dict is this package's and not CLAP's."""
    return name.split(".")[0] in OWN
