"""Running partition sums of pairs that were seen, found by their ids."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.tensors.float32 import StaysFloat32

# Odd 64-bit numbers with half of their bits set, as signed integers: products wrap around.
_CLIP_FACTOR, _CAPTION_FACTOR = -0x61C8864680B583EB, -0x3D4D51C2D82B14B1


def pair_keys(clip_ids: Tensor, caption_ids: Tensor) -> Tensor:
    """``[N]`` int64, one number for each pair of a clip and a caption.

    Of a million pairs two have one key by chance once in 30 million data sets.

    Args:
        clip_ids: ``[N]`` int64.
        caption_ids: ``[N]`` int64.
    """
    return clip_ids * _CLIP_FACTOR + caption_ids * _CAPTION_FACTOR


class RunningSums(StaysFloat32):
    """A table of the logarithms of running sums, with a row for every pair that was seen.

    It is sorted by key and grows with the pairs, so that its state holds what was seen and needs no
    size; a state of any length loads. Logarithms cannot overflow, whatever the temperature. The
    host waits for the device once in each :meth:`write`, to learn how many pairs are new.

    Attributes:
        keys: ``[K]`` int64, ascending, see :func:`pair_keys`.
        log_sums: ``[K, 2]`` float32, of the audio and of the text query of each pair.
    """

    keys: Tensor
    log_sums: Tensor
    data_fingerprint: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("log_sums", torch.zeros(0, 2))
        # Digest of the data that the ids belong to, 0 where nobody has said so.
        self.register_buffer("data_fingerprint", torch.zeros(1, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

    def clear(self) -> None:
        """Forget all pairs."""
        self.keys, self.log_sums = self.keys[:0].clone(), self.log_sums[:0].clone()

    def reset_parameters(self) -> None:
        """Back to the initial state, see :meth:`Atc.reset_parameters`."""
        self.clear()
        self.data_fingerprint.zero_()

    def look_up(self, keys: Tensor) -> Tensor:
        """``[N, 2]`` float32 of the pairs with these keys, NaN for those never seen."""
        if not len(self):
            return self.log_sums.new_full((len(keys), 2), torch.nan)
        rows = torch.searchsorted(self.keys, keys).clamp(max=len(self) - 1)
        return torch.where((self.keys[rows] == keys)[:, None], self.log_sums[rows], torch.nan)

    @torch.no_grad()
    def write(self, keys: Tensor, log_sums: Tensor) -> None:
        """Keep the sums of pairs; of a pair that is there twice, those of its first row.

        Args:
            keys: ``[N]`` int64.
            log_sums: ``[N, 2]`` float32; a row that is not finite is passed over.
        """
        finite = log_sums.isfinite().all(dim=1)
        keys, order = keys[finite].sort(stable=True)
        first = torch.ones_like(keys, dtype=torch.bool)
        first[1:] = keys[1:] != keys[:-1]
        keys, log_sums = keys[first], log_sums[finite][order][first]
        # The later of two equal keys stands behind the other and is the one to keep.
        joined, order = torch.cat([self.keys, keys]).sort(stable=True)
        last = torch.ones_like(joined, dtype=torch.bool)
        last[:-1] = joined[1:] != joined[:-1]
        self.keys = joined[last]
        self.log_sums = torch.cat([self.log_sums, log_sums])[order][last]

    def set_data(self, fingerprint: int) -> None:
        """Name the data that pairs are of, and forget pairs of other data, with a warning.

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
        for name in ("keys", "log_sums"):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if present:
            self.set_data(present)
