"""A criterion of a third party, whose temperature has no option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(kw_only=True)
class SharpConfig:
    sharpness: float = 10.0


class Sharp(nn.Module):
    config_class = SharpConfig
    measures = ("loss",)

    def __init__(self, model: nn.Module, config: SharpConfig) -> None:
        super().__init__()
        self.model, self.config, self.queues = model, config, dict[str, Any]()
        self.temperature = nn.Parameter(torch.tensor([1 / config.sharpness]))

    def on_optimizer_step(self) -> None:
        pass
