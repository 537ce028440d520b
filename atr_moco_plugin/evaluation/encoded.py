"""Embeddings and tokens of clips or captions, kept for scoring and re-ranking."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.learned_distance import LearnedDistance
from atr_moco_plugin.tokens import AudioTokens, TextTokens, valid_first


class Encoded:
    """Embeddings and token states of the items of one modality, collected batch by batch.

    Tokens are kept for re-ranking in main memory, without their padding and in the encoder's dtype.
    In float32 a clip of 10 s takes 1.5 MB (496 tokens of width 768): 1.5 GB for the 975 clips of
    AudioCaps' test set, 76 GB for 50,000, shared out over the processes. A caption of 20 tokens
    takes 61 kB where the head reads its states, and 160 bytes where the ids are enough.

    Args:
        rows: ``[N]`` int64, the added row of each of the N items, where several items share a row;
            ``None`` where every row is an item.
        sharded: whether each process keeps only the tokens of its own items.
        distance: of a model that ranks by a learned distance. What is scored and saved then are its
            vectors, and :attr:`plain` are the embeddings.
    """

    def __init__(
        self,
        rows: Tensor | None = None,
        *,
        sharded: bool = False,
        distance: LearnedDistance | None = None,
    ) -> None:
        self._rows = rows
        self.sharded = sharded
        self._distance = distance
        self._embeddings: list[Tensor] = []
        self._plain: list[Tensor] = []
        self._lengths: dict[int, int] = {}
        self._states: dict[int, Tensor] = {}
        self._input_ids: dict[int, Tensor] = {}

    def add(
        self, embeddings: Tensor, tokens: AudioTokens | TextTokens | None, first: int = 0
    ) -> None:
        """Take one batch.

        Args:
            embeddings: ``[B, d]`` unit-norm.
            tokens: tokens of the batch's rows from ``first`` on, the valid ones first in each row;
                ``None`` keeps none, as where nothing is re-ranked. Captions may have no states.
            first: the first row of the batch that has tokens here; other processes have the rest.
        """
        start = sum(map(len, self._embeddings)) + first
        plain = embeddings.detach().float()
        self._plain.append(plain)
        self._embeddings.append(plain if self._distance is None else self._distance(plain))
        if tokens is None:
            return
        lengths = tokens.mask.sum(dim=1).tolist()
        self._lengths.update(enumerate(lengths, start))
        _keep(self._states, tokens.states, lengths, start)
        if isinstance(tokens, TextTokens):
            _keep(self._input_ids, tokens.input_ids, lengths, start)

    @property
    def distinct(self) -> Tensor:
        """``[U, d]`` unit-norm float32, one row for items that are the same.

        Raises:
            InputError: when no batch was added.
        """
        if not self._embeddings:
            raise InputError("Nothing was encoded; the split has no clips or no captions.")
        return torch.cat(self._embeddings)

    @property
    def rows(self) -> Tensor:
        """``[N]`` int64, the row of each item in :attr:`distinct`."""
        embeddings = self.distinct
        if self._rows is None:
            return torch.arange(len(embeddings), device=embeddings.device)
        return self._rows.to(embeddings.device)

    @property
    def embeddings(self) -> Tensor:
        """``[N, d]`` unit-norm float32.

        Raises:
            InputError: when no batch was added.
        """
        return self.distinct[self.rows]

    @property
    def plain(self) -> Tensor:
        """``[N, d]`` unit-norm float32: the towers' embeddings, of which the rank is measured."""
        return torch.cat(self._plain)[self.rows]

    @property
    def kept(self) -> Tensor:
        """``[K]`` int64, sorted: the rows whose tokens this process has."""
        return torch.tensor(sorted(self._lengths), dtype=torch.int64)

    def audio_tokens(self, rows: Tensor) -> AudioTokens:
        """Tokens of P rows (``[P]`` int64), padded to the longest of them, on the device of the
        embeddings."""
        chosen, place = self._chosen(rows)
        return AudioTokens(self._padded(self._states, chosen)[place], self._mask(chosen)[place])

    def text_tokens(self, rows: Tensor) -> TextTokens:
        """Tokens of P rows (``[P]`` int64), padded to the longest of them, on the device of the
        embeddings; the states are ``None`` where none were kept."""
        chosen, place = self._chosen(rows)
        return TextTokens(
            self._padded(self._states, chosen)[place] if self._states else None,
            self._mask(chosen)[place],
            self._padded(self._input_ids, chosen)[place],
        )

    def _chosen(self, rows: Tensor) -> tuple[list[int], Tensor]:
        # Each row crosses to the device once, however many pairs it is in.
        chosen, place = torch.unique(rows, return_inverse=True)
        return chosen.tolist(), place.to(self._embeddings[0].device)

    def _padded(self, source: dict[int, Tensor], rows: list[int]) -> Tensor:
        padded = pad_sequence([source[i] for i in rows], batch_first=True)
        return padded.to(self._embeddings[0].device)

    def _mask(self, rows: list[int]) -> Tensor:
        lengths = torch.tensor([self._lengths[i] for i in rows])
        return valid_first(lengths, int(lengths.max())).to(self._embeddings[0].device)


def _keep(kept: dict[int, Tensor], x: Tensor | None, lengths: list[int], start: int) -> None:
    """Keep the valid tokens of ``[B, L, ...]`` in main memory, from row ``start`` on."""
    if x is None:
        return
    x = x.detach().cpu()
    for row, length in enumerate(lengths):
        # Cloned, since a slice would keep the padding of the whole batch alive.
        kept[start + row] = x[row, :length].clone()
