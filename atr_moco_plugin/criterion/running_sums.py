"""Running partition sums of items that were seen, found by their ids."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.tensors.float32 import StaysFloat32


class RunningSums(StaysFloat32):
    """A table of the logarithms of running sums, with a row for every clip, or caption, that was
    seen.

    It is sorted by id and grows with what is seen, so that its state needs no size; a state of any
    length loads. Logarithms cannot overflow, whatever the temperature. The host waits for the
    device once in each :meth:`write`, to learn how many ids are new.

    Attributes:
        ids: ``[K]`` int64, ascending.
        log_sums: ``[K]`` float32.
    """

    ids: Tensor
    log_sums: Tensor
    data_fingerprint: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("log_sums", torch.zeros(0))
        # Digest of the data that the ids belong to, 0 where nobody has said so.
        self.register_buffer("data_fingerprint", torch.zeros(1, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def clear(self) -> None:
        """Forget all of them."""
        self.ids, self.log_sums = self.ids[:0].clone(), self.log_sums[:0].clone()

    def reset_parameters(self) -> None:
        """Back to the initial state, see :meth:`Atc.reset_parameters`."""
        self.clear()
        self.data_fingerprint.zero_()

    def look_up(self, ids: Tensor) -> Tensor:
        """``[N]`` float32 of the items with these ids, NaN for those never seen."""
        if not len(self):
            return self.log_sums.new_full((len(ids),), torch.nan)
        rows = torch.searchsorted(self.ids, ids).clamp(max=len(self) - 1)
        return torch.where(self.ids[rows] == ids, self.log_sums[rows], torch.nan)

    @torch.no_grad()
    def write(self, ids: Tensor, log_sums: Tensor) -> None:
        """Keep the sums of items; of one that is there twice, that of its first row.

        Args:
            ids: ``[N]`` int64.
            log_sums: ``[N]`` float32; one that is not finite is passed over.
        """
        finite = log_sums.isfinite()
        ids, order = ids[finite].sort(stable=True)
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[1:] != ids[:-1]
        ids, log_sums = ids[first], log_sums[finite][order][first]
        # The later of two equal ids stands behind the other and is the one to keep.
        joined, order = torch.cat([self.ids, ids]).sort(stable=True)
        last = torch.ones_like(joined, dtype=torch.bool)
        last[:-1] = joined[1:] != joined[:-1]
        self.ids = joined[last]
        self.log_sums = torch.cat([self.log_sums, log_sums])[order][last]

    def set_data(self, fingerprint: int) -> None:
        """Name the data that the ids are of, and forget those of other data, with a warning.

        Args:
            fingerprint: digest of the data, not 0.
        """
        saved = int(self.data_fingerprint)
        self.data_fingerprint.fill_(fingerprint)
        if saved in (0, fingerprint) or not len(self):
            return
        self.clear()
        warnings.warn(
            "The running sums of the checkpoint are of another data set, so they start empty.",
            stacklevel=3,
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        present = int(self.data_fingerprint)
        for name in ("ids", "log_sums"):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if present:
            self.set_data(present)
