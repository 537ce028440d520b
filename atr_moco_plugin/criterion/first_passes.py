"""What is looked at in the first training passes alone: mistakes in a loop or a model under which a
loss is a number all the same. The host waits for the device there, and never again."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from atr_moco_plugin.criterion.positives import PositivesMode, positive_pairs
from atr_moco_plugin.errors import InputError

LOOKED_AT = 3
"""Training passes of a process that are looked at."""

_TOLERANCE = 1e-2
"""Of a length of 1; that of vectors in bfloat16 is off by up to 8e-3."""


class FirstPasses:
    """Looks at values in the first training passes of a process."""

    def __init__(self) -> None:
        self._seen = self._alike = 0

    @property
    def over(self) -> bool:
        """Whether nothing is looked at any more."""
        return self._seen >= LOOKED_AT

    @torch.no_grad()
    def look(
        self, a: Tensor, u: Tensor, clip_ids: Tensor, caption_ids: Tensor, mode: PositivesMode
    ) -> None:
        """Look at the batch of a training pass, outside of any graph.

        Args:
            a: ``[B, d]`` audio embeddings.
            u: ``[B, d]`` text embeddings.
            clip_ids: of the batch, as of :func:`~atr_moco_plugin.criterion.positive_pairs`.
            caption_ids: of the same shape.
            mode: which pairs are positives.

        Raises:
            InputError: embeddings that are not of length 1.
        """
        if not self._seen:
            _check_unit_norm(a, "audio")
            _check_unit_norm(u, "text")
        self._seen += 1
        ids = clip_ids, caption_ids
        # A batch of one pair has no other pair to be told from.
        self._alike += len(a) > 1 and bool(positive_pairs(*ids, *ids, mode=mode).all())
        if self._alike == LOOKED_AT:
            warnings.warn(
                f"In each of the first {LOOKED_AT} batches of this process all pairs are positives "
                "of each other by their ids, so that nothing in a batch is told apart: give every "
                "clip a `clip_id` and every caption text a `caption_id` of its own, or draw other "
                "batches.",
                stacklevel=3,  # below the decorator of this method
            )


def _check_unit_norm(embeddings: Tensor, tower: str) -> None:
    norms = embeddings.float().norm(dim=1)
    # What is not finite is the guard's, and a vector of zeros has no direction to be scaled in.
    known = norms.isfinite() & (norms > 0)
    if bool((known & ((norms - 1).abs() > _TOLERANCE)).any()):
        raise InputError(
            f"The {tower} tower returns embeddings of length {norms[known].min():.3g} to "
            f"{norms[known].max():.3g}, expected 1: return "
            "`torch.nn.functional.normalize(embeddings.float(), dim=1)`."
        )
