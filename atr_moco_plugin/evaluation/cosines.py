"""Cosines of all clips and captions, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.evaluation.relevance import Direction


class Cosines:
    """Cosines of A clips and C captions. The matrix ``[A, C]`` is made block by block.

    Args:
        audio: A encoded clips.
        text: C encoded captions.

    Raises:
        InputError: when nothing was encoded or an embedding is not finite.
    """

    def __init__(self, audio: Encoded, text: Encoded) -> None:
        self._audio = _checked(audio.embeddings, "clips")
        self._text = _checked(text.distinct, "captions")
        self._rows = text.rows

    @property
    def shape(self) -> tuple[int, int]:
        """``(A, C)``."""
        return len(self._audio), len(self._rows)

    def blocks(self, direction: Direction) -> Iterator[tuple[int, Tensor]]:
        """The first query of each block, and the block's cosines ``[n, items]`` float32."""
        if direction == "a2t":
            for start, clips in query_blocks(self._audio, len(self._rows)):
                # Over the distinct captions, so that equal ones tie exactly.
                yield start, _cosines(clips, self._text)[:, self._rows]
        else:
            for start, rows in query_blocks(self._rows, len(self._audio)):
                yield start, _cosines(self._text[rows], self._audio)

    def matrix(self) -> Tensor:
        """``[A, C]`` float32 in main memory."""
        return torch.cat([block.cpu() for _, block in self.blocks("a2t")])


def _checked(embeddings: Tensor, name: str) -> Tensor:
    broken = int((~embeddings.isfinite()).any(dim=1).sum())
    if broken:
        raise InputError(
            f"The embeddings of {broken} of {len(embeddings)} {name} are not finite; the "
            "checkpoint is broken, or a clip's audio is."
        )
    return embeddings


def _cosines(queries: Tensor, items: Tensor) -> Tensor:
    # In float64, which neither bf16 autocast nor TF32 rounds: ties count against the model.
    return (queries.double() @ items.double().T).float()
