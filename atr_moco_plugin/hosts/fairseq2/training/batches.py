"""The data set families and fairseq2's view of the batch loader."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairseq2.datasets import DataReader
from fairseq2.device import Device, SupportsDeviceTransfer
from fairseq2.recipe.error import RecipeError
from torch import Tensor
from typing_extensions import Self, override

from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.data.loading.loader import PairLoader, iterate_audio
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.encode import own_share
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors


class PairReader(DataReader[PairBatch]):
    """Training batches; the loader's own exact state is the reader's.

    Args:
        loader: where batches come from.
        num_accumulate: batches an optimizer step.
        rank: this process among all.

    Attributes:
        before_step: called before the batches of a step are read, on every rank alike.
    """

    before_step: Callable[[], None] | None = None

    def __init__(self, loader: PairLoader, num_accumulate: int, rank: int = 0) -> None:
        self._loader = loader
        self._num_accumulate = num_accumulate
        self._rank = rank

    @property
    def num_examples(self) -> int:
        """Pairs in an epoch, over all ranks."""
        return self._loader.num_examples

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> list[PairBatch]:
        if self.before_step is not None:
            self.before_step()
        batches = []
        try:
            with one_line_errors():
                for _ in range(self._num_accumulate):
                    # A step that the epoch cannot fill is dropped: every step sees as many pairs.
                    batches.append(next(self._loader))
        except RecipeError as ex:
            if self._rank != 0:
                # fairseq2 shows the first process's log alone; the launcher stops the others.
                print(f"Process {self._rank}: {ex}", file=sys.stderr)
            raise
        return batches

    @override
    def reset(self) -> None:
        self._loader.reset()

    @override
    def state_dict(self) -> dict[str, object]:
        return self._loader.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self._loader.load_state_dict(state_dict)

    @property
    @override
    def num_accumulate(self) -> int:
        return self._num_accumulate


@dataclass
class ClipBatch(SupportsDeviceTransfer):
    """Audio of B clips, in the split's order; the lengths stay on the CPU, see
    :class:`~atr_moco_plugin.data.loading.batch.PairBatch`."""

    waveforms: Tensor
    lengths: Tensor

    @override
    def to(self, device: Device, *, non_blocking: bool = False) -> None:
        self.waveforms = self.waveforms.to(device, non_blocking=non_blocking)


@dataclass
class UnreadableBatch(SupportsDeviceTransfer):
    """In place of a batch that this process cannot read, so that it can tell the others."""

    reason: str

    @override
    def to(self, device: Device, *, non_blocking: bool = False) -> None:
        pass


class ClipReader(DataReader[ClipBatch | UnreadableBatch]):
    """The beginning of every clip that this process encodes, in the split's order.

    Args:
        dataset: where clips come from.
        clips: those of the whole split.
        batch_size: as of :func:`~atr_moco_plugin.data.loading.loader.iterate_audio`, like the rest.
        max_seconds: longest waveform.
        num_workers: threads that decode.

    Attributes:
        num_batches: batches of all processes together, each counted once.
    """

    def __init__(
        self,
        dataset: AudioTextDataset,
        clips: Sequence[Clip],
        batch_size: int,
        max_seconds: float,
        num_workers: int = 0,
    ) -> None:
        own, self.num_batches = own_share(clips, batch_size)
        self._arguments = (dataset, own, batch_size, max_seconds, num_workers)
        self.reset()

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> list[ClipBatch | UnreadableBatch]:
        try:
            return [ClipBatch(*next(self._batches))]
        except (InputError, OSError) as ex:
            return [UnreadableBatch(str(ex))]

    @override
    def reset(self) -> None:
        self._batches = iterate_audio(*self._arguments)

    @override
    def state_dict(self) -> dict[str, object]:
        return {}

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.reset()

    @property
    @override
    def num_accumulate(self) -> int:
        return 1
