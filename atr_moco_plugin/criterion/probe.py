"""The keys of a fixed batch, whenever a rank logger asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.contracts import Inputs
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.tensors.eval_mode import eval_mode

PROBE_PAIRS = 16
"""Pairs of a probe."""


class KeyProbe:
    """Encodes one batch with the encoders that make the keys of a criterion's queues.

    In eval mode, without a gradient and without touching a random state: a training with a probe
    makes the very steps of one without. Its arguments are those of a criterion's ``forward``.

    Args:
        criterion: has ``key_towers``, as :class:`~atr_moco_plugin.criterion.moco_atc.MocoAtc` does.
        audio: arguments of the audio tower, on the criterion's device.
        text: arguments of the text tower.
        clip_ids: ``[P]`` int64.
        caption_ids: of the same shape.

    Attributes:
        fingerprint: another one for other items.

    Example:
        >>> probe = KeyProbe(criterion, audio, text, clip_ids, caption_ids)  # doctest: +SKIP
        >>> RankLogger(criterion.queues, "rank.jsonl", probe=probe)  # doctest: +SKIP
    """

    def __init__(
        self, criterion: Any, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> None:
        self._criterion = criterion
        self._inputs = {"audio": dict(audio), "text": dict(text)}
        ids = torch.stack([clip_ids, caption_ids]).flatten().tolist()
        self.fingerprint = f"{stable_digest('probe', *ids):x}"

    @torch.no_grad()
    def __call__(self) -> dict[str, Tensor]:
        """The keys now: modality to ``[P, d]``."""
        towers = self._criterion.key_towers
        with eval_mode(towers.values()), _random_state_kept(self._criterion.temperature.device):
            return {name: towers[name](**inputs)[0] for name, inputs in self._inputs.items()}


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """An encoder of somebody else may draw in eval mode too."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
