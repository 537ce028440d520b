"""The batches of a run, in an order that a resumed run repeats exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.safety.names import name_clips_of

STATE_FILE = "pairs.json"
"""In a checkpoint: the place in the data."""


ToInputs = Callable[[PairBatch], dict[str, Any]]


class StepBatches:
    """The batches of all steps of a run as one pass, which ``Trainer`` takes for one epoch.

    Epochs are the loader's own. The place in them is saved with each checkpoint, since ``Trainer``
    would decode everything again that was before it. A step that the rest of an epoch cannot fill
    is dropped: every step sees as many pairs.

    Args:
        loader: of training batches.
        num_steps: optimizer steps of the run.
        accumulate: batches a step.
        to_inputs: makes the arguments of the model of a batch.

    Raises:
        InputError: an epoch has fewer batches than a step.
    """

    def __init__(
        self,
        loader: PairLoader,
        num_steps: int,
        accumulate: int = 1,
        to_inputs: ToInputs | None = None,
    ) -> None:
        if accumulate > len(loader):
            raise InputError(
                f"`trainer.grad_accumulation.num_batches` is {accumulate}, but an epoch has "
                f"{len(loader)} batches, which fill no step: lower it or `dataset.batch_size`."
            )
        self._loader = loader
        self._num_steps = num_steps
        self._accumulate = accumulate
        self._to_inputs = to_inputs or tower_inputs

    def __len__(self) -> int:
        """Batches of the whole run."""
        return self._num_steps * self._accumulate

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches from the place in the data on, without an end: ``Trainer`` counts the steps."""
        while True:
            if len(self._loader) - self._loader.position < self._accumulate:
                self._loader.reset()
            for _ in range(self._accumulate):
                yield self._to_inputs(next(self._loader))

    def save(self, checkpoint: Path) -> None:
        """Write the place in the data into a checkpoint's folder."""
        state = json.dumps(self._loader.state_dict(), indent=2, default=list)
        write_atomically(checkpoint / STATE_FILE, state + "\n")

    def load(self, checkpoint: Path) -> None:
        """Go on from where a checkpoint was made.

        Raises:
            InputError: its place in the data is missing, or of other data or settings.
        """
        file = checkpoint / STATE_FILE
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            self._loader.load_state_dict(state)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as ex:
            if isinstance(ex, InputError):
                raise
            raise InputError(
                f"{file} cannot be read ({type(ex).__name__}), which says where in the data the "
                "run was: move the checkpoint away to go on from an earlier one."
            ) from ex


def tower_inputs(batch: PairBatch) -> dict[str, Any]:
    """A batch as :class:`~atr_moco_plugin.hosts.transformers.TrainerModel` takes it: arguments of
    the two towers, and the ids."""
    ids = {"clip_id": batch.clip_ids, "caption_id": batch.caption_ids}
    return {"audio_inputs": _mappings(batch.audio), "text_inputs": _mappings(batch.text), **ids}


def _mappings(inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a tower without named tuples, which ``Trainer`` cannot move to a device."""
    tokens = inputs.get("tokens")
    return inputs if tokens is None else {**inputs, "tokens": tokens._asdict()}


class TrainingPairs(Dataset[Any]):
    """What ``Trainer`` and its callbacks ask of a training set whose loader reads it.

    Args:
        dataset: the data set.
        split: its split that is trained on.
        num_pairs: pairs in an epoch.
        first_pairs: reads that many pairs, always the same.
        to_inputs: makes the arguments of the model of a batch.
    """

    def __init__(
        self,
        dataset: AudioTextDataset,
        split: str,
        num_pairs: int,
        first_pairs: Callable[[int], PairBatch],
        to_inputs: ToInputs | None = None,
    ) -> None:
        self.name = f"{dataset.name} {split}"
        self.name_clips = name_clips_of(dataset, split)
        self.fingerprint = dataset.fingerprint
        self._num_pairs = num_pairs
        self._first_pairs = first_pairs
        self._to_inputs = to_inputs or tower_inputs

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return self._num_pairs

    def probe_batch(self, pairs: int) -> dict[str, Any]:
        """The arguments of the model for the first pairs, which a rank logger has encoded again and
        again."""
        return self._to_inputs(self._first_pairs(pairs))

    def __getitem__(self, index: int) -> Any:
        raise TypeError("Batches come from StepBatches, not from single examples.")
