"""What may take the place of a batch's clips and captions: outputs of encoders that stand still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.loading.batch import PairBatch


class Outputs(Protocol):
    """Outputs by clip and caption, such as
    :class:`~atr_moco_plugin.embedding_cache.batch.CachedOutputs`. Copied into each worker."""

    @property
    def crops(self) -> int | None:
        """Crops of each clip; ``None`` where clips are read as they are."""

    def lengths(self) -> NDArray[np.int64] | None:
        """``[clips]``, how long that is which stands in for each clip of the split, in its order;
        ``None`` where all of it is equally long."""

    def read(self, key: str, caption: str, crop: int) -> Any:
        """What there is of a pair.

        Args:
            key: of the clip.
            caption: its text.
            crop: which of the clip's crops.

        Raises:
            InputError: if the clip could not be read when its outputs were made.
        """

    def fill(self, batch: PairBatch, pairs: Sequence[Any]) -> PairBatch:
        """A batch with the outputs of its pairs.

        Args:
            batch: B pairs; where there are ``crops`` its waveforms are empty.
            pairs: what :meth:`read` gave for each.
        """
