"""Clips and captions through their towers, batch by batch, on one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import pad_sequence

from atr_moco_plugin.distributed import (
    gather,
    gather_counts,
    gather_padded,
    gather_values,
    process_index,
    world_size,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import AudioTokens, TextTokens, valid_first

ItemT = TypeVar("ItemT")

Advance = Callable[[int], object]
"""Called with the number of items that were just done."""


def no_progress(done: int) -> None:
    """An :data:`Advance` that says nothing."""


class Encoded:
    """Embeddings and token states of the items of one modality, collected batch by batch.

    Tokens are kept for re-ranking in main memory, without their padding and in the encoder's dtype.
    In float32 a clip of 10 s takes 1.5 MB (496 tokens of width 768): 1.5 GB for the 975 clips of
    AudioCaps' test set, 76 GB for 50,000, shared out over the processes. A caption of 20 tokens
    takes 61 kB where the head reads its states, and 160 bytes where the ids are enough.

    Args:
        rows: ``[N]`` int64, the row of each of the N items among those that are added, where some
            are the same; None where every row is an item.
        sharded: whether each process keeps the tokens of its own items alone.
    """

    def __init__(self, rows: Tensor | None = None, *, sharded: bool = False) -> None:
        self._rows = rows
        self.sharded = sharded
        self._embeddings: list[Tensor] = []
        self._lengths: dict[int, int] = {}
        self._states: dict[int, Tensor] = {}
        self._input_ids: dict[int, Tensor] = {}

    def add(
        self, embeddings: Tensor, tokens: AudioTokens | TextTokens | None, first: int = 0
    ) -> None:
        """Take one batch.

        Args:
            embeddings: ``[B, d]`` unit-norm.
            tokens: of the rows of the batch from ``first`` on, the valid ones first in each row;
                ``None`` where there is nothing to re-rank. Those of captions may have no states.
            first: see there.
        """
        start = sum(map(len, self._embeddings)) + first
        self._embeddings.append(embeddings.detach().float())
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
            ValueError: when no batch was added.
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
            ValueError: when no batch was added.
        """
        return self.distinct[self.rows]

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


class CaptionBatches(NamedTuple):
    """Captions in batches, equal ones once.

    Equal captions then have equal embeddings and scores to the last bit and count as the tie that
    they are; encoded in two batches they would differ by rounding, and chance would decide.

    Attributes:
        batches: ``(input_ids [B, L], mask [B, L])`` of the distinct captions, by length.
        rows: ``[C]`` int64, the row of each caption in them.
    """

    batches: list[tuple[Tensor, Tensor]]
    rows: Tensor


def distinct_captions(
    input_ids: Tensor, mask: Tensor, batch_size: int, device: torch.device | str = "cpu"
) -> CaptionBatches:
    """Batches of the distinct ones of C captions, those of similar length together.

    Args:
        input_ids: ``[C, L]`` int64.
        mask: ``[C, L]`` bool, the valid tokens first in each row.
        batch_size: captions a batch.
        device: where the batches go.
    """
    lengths = mask.sum(dim=1)
    # By length first: the distinct rows come out sorted.
    keys = torch.cat([lengths[:, None], input_ids.masked_fill(~mask, 0)], dim=1)
    keys, rows = torch.unique(keys, dim=0, return_inverse=True)
    batches = []
    for part in keys.split(batch_size):
        lengths, ids = part[:, 0], part[:, 1 : 1 + int(part[-1, 0])]
        valid = valid_first(lengths, ids.size(1))
        batches.append((ids.to(device), valid.to(device)))
    return CaptionBatches(batches, rows)


@torch.no_grad()
def encode_text(model: Module, captions: CaptionBatches, *, keep_tokens: bool) -> Encoded:
    """Embed captions on this process.

    Args:
        model: a :class:`~atr_moco_plugin.model.RetrievalModel` in eval mode.
        captions: on the model's device.
        keep_tokens: keep the tokens for re-ranking, with their states unless the model says with
            ``needs_text_states`` that it does not read them.

    Returns:
        The embeddings, and the tokens when asked for.
    """
    encoded = Encoded(captions.rows)
    keep_states = getattr(model, "needs_text_states", True)
    for input_ids, mask in captions.batches:
        embeddings, tokens = model.text(input_ids, mask)
        tokens = tokens if keep_states else tokens._replace(states=None)
        encoded.add(embeddings, tokens if keep_tokens else None)
    return encoded


def share(batches: int) -> list[int]:
    """Which of so many batches this process encodes, in turn with the others.

    Every process has the same number of turns; one that has no batch left takes the last one
    again, which :func:`encode_shared` leaves out.
    """
    turns = -(-batches // world_size())
    return [min(turn * world_size() + process_index(), batches - 1) for turn in range(turns)]


def own_share(items: Sequence[ItemT], batch_size: int) -> tuple[list[ItemT], int]:
    """The items of the batches that :func:`share` gives this process, in their order.

    Returns:
        The items, and the number of batches of all processes together.
    """
    total = -(-len(items) // batch_size)
    own: list[ItemT] = []
    for i in share(total):
        own += items[i * batch_size : (i + 1) * batch_size]
    return own, total


class SharedEncoder:
    """Embeds items with all processes, a batch of each at a time; the embeddings are those of one
    process.

    Args:
        tower: the audio or text tower, in eval mode.
        total: batches of all processes together, each counted once.
        rows: see :class:`Encoded`.
        keep_tokens: keep the tokens for re-ranking.
        keep_states: keep their states too; captions go without where the head reads none.
        gather_states: keep those of all items on every process, and not only this one's own.

    Attributes:
        encoded: all embeddings so far, the same on every process.
    """

    def __init__(
        self,
        tower: Module,
        total: int,
        *,
        rows: Tensor | None = None,
        keep_tokens: bool,
        keep_states: bool = True,
        gather_states: bool,
    ) -> None:
        self._tower = tower
        self._total = total
        self._keep_tokens = keep_tokens
        self._keep_states = keep_states
        self._gather_states = gather_states
        self._turn = 0
        self.encoded = Encoded(rows, sharded=not gather_states and world_size() > 1)

    @torch.no_grad()
    def take(self, *batch: Tensor) -> int:
        """This process's batch of the next turn, on the tower's device.

        Returns:
            Items that all processes had in this turn.

        Raises:
            InputError: when another process gave up.
        """
        embeddings, tokens = self._tower(*batch)
        mine = len(embeddings) if self._turn * world_size() + process_index() < self._total else 0
        self._turn += 1
        counts = gather_counts(mine, embeddings.device)
        if min(counts) < 0:
            self._stop(None, embeddings.device)
        first = 0 if self._gather_states else sum(counts[: process_index()])
        kept = None
        if self._keep_tokens:
            tokens = tokens if self._keep_states else tokens._replace(states=None)
            kept = type(tokens)(*(None if x is None else x[:mine] for x in tokens))
            kept = type(tokens)(*gather_padded(*kept)) if self._gather_states else kept
        self.encoded.add(gather(embeddings[:mine]), kept, first)
        return sum(counts)

    def give_up(self, reason: str) -> NoReturn:
        """In place of :meth:`take`, where this process has no batch: no process waits for it.

        Raises:
            InputError: always, on every process alike, with the first reason there is.
        """
        device = next(self._tower.parameters()).device
        gather_counts(-1, device)
        self._stop(reason, device)

    def _stop(self, reason: str | None, device: torch.device) -> NoReturn:
        raise InputError(next(x for x in gather_values(reason, device) if x is not None))


def encode_shared(
    tower: Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    total: int,
    *,
    rows: Tensor | None = None,
    keep_tokens: bool,
    keep_states: bool = True,
    gather_states: bool,
    advance: Advance = no_progress,
) -> Encoded:
    """Embed items with all processes; the embeddings are those of one process.

    Batches go to the processes in turn and have the same items as on one process.

    Args:
        tower: the audio or text tower, in eval mode.
        batches: those that :func:`share` gives this process, on the tower's device.
        total: batches of all processes together, each counted once.
        rows: see :class:`Encoded`.
        keep_tokens: keep the tokens for re-ranking.
        keep_states: keep their states too; captions go without where the head reads none.
        gather_states: keep those of all items on every process, and not only this one's own.
        advance: told after every turn how many items it had.

    Returns:
        All embeddings, the same on every process.

    Raises:
        InputError: on every process, when one of them cannot read a batch.
    """
    encoder = SharedEncoder(
        tower,
        total,
        rows=rows,
        keep_tokens=keep_tokens,
        keep_states=keep_states,
        gather_states=gather_states,
    )
    remaining = iter(batches)
    while True:
        try:
            batch = next(remaining)
        except StopIteration:
            return encoder.encoded
        except (InputError, OSError) as ex:
            encoder.give_up(str(ex))
        advance(encoder.take(*batch))


def encode_captions(
    model: Module,
    captions: CaptionBatches,
    device: torch.device,
    *,
    keep_tokens: bool,
    advance: Advance = no_progress,
) -> Encoded:
    """Embed captions with all processes, as :func:`encode_text` does on one.

    Args:
        model: as there.
        captions: the same on every process.
        device: where the model is.
        keep_tokens: as there, of all captions on every process.
        advance: told after every turn how many captions it had.
    """
    batches = captions.batches
    return encode_shared(
        model.text,
        ([x.to(device) for x in batches[i]] for i in share(len(batches))),
        len(batches),
        rows=captions.rows,
        keep_tokens=keep_tokens,
        keep_states=getattr(model, "needs_text_states", True),
        gather_states=True,
        advance=advance,
    )
