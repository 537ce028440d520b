"""Which row of one matrix belongs to which row of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix

_ROWS = 4096


class Gallery(NamedTuple):
    """Some rows of both sides with all their pairs, to retrieve in.

    Attributes:
        audio: ``[A]`` int64, row numbers.
        text: ``[C]`` int64, row numbers.
        relevance: of these A and C rows.
        groups: ``[A]`` and ``[C]`` int64: the group of each row, see :attr:`PairedRows.groups`.
    """

    audio: Tensor
    text: Tensor
    relevance: RelevanceMatrix
    groups: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Two matrices of embeddings and which rows belong together.

    Attributes:
        audio: ``[N, d]``.
        text: ``[M, e]``.
        pairs: ``[P, 2]`` int64, a row of ``audio`` and one of ``text``.
    """

    audio: Tensor
    text: Tensor
    pairs: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of the pairs in float64, ``[n, d]`` and ``[n, e]``, some thousand at a time."""
        for part in torch.split(self.pairs, _ROWS):
            yield self.audio[part[:, 0]].double(), self.text[part[:, 1]].double()

    def means(self) -> tuple[Tensor, Tensor]:
        """The mean row of each side over the pairs, ``[d]`` and ``[e]`` float64."""
        audio = self.audio.new_zeros(self.audio.size(1), dtype=torch.float64)
        text = self.text.new_zeros(self.text.size(1), dtype=torch.float64)
        for a, t in self.blocks():
            audio += a.sum(dim=0)
            text += t.sum(dim=0)
        return audio / len(self), text / len(self)

    def of(self, pairs: Tensor) -> PairedRows:
        """The same rows with other pairs."""
        return PairedRows(self.audio, self.text, pairs)

    @cached_property
    def groups(self) -> Tensor:
        """``[P]`` int64: pairs that share a row, also through others, have the same number.

        With one clip and its captions a group, or all clips and captions of a class. Numbers are
        0 to G - 1 in the order of appearance.
        """
        return _groups(self.pairs)

    def one_to_one(self) -> PairedRows:
        """Pairs in which no row is twice: of each row the first pair that is still free."""
        seen: tuple[set[int], set[int]] = (set(), set())
        kept = []
        for i, (a, t) in enumerate(self.pairs.tolist()):
            if a not in seen[0] and t not in seen[1]:
                seen[0].add(a)
                seen[1].add(t)
                kept.append(i)
        return self if len(kept) == len(self) else self.of(self.pairs[kept])

    def drawn(self, most: int, seed: int) -> Tensor:
        """``[P]`` bool: the pairs of whole groups drawn at random, ``most`` pairs at most.

        Groups that would make it more are passed over, so there may be none.
        """
        groups = self.groups
        sizes = torch.bincount(groups)
        order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
        order = order[sizes[order] <= most]
        chosen = order[sizes[order].cumsum(dim=0) <= most]
        kept = torch.zeros(len(sizes), dtype=torch.bool)
        kept[chosen] = True
        return kept[groups]

    def gallery(self) -> Gallery:
        """All rows that have a partner."""
        audio, a = self.pairs[:, 0].unique(return_inverse=True)
        text, t = self.pairs[:, 1].unique(return_inverse=True)
        relevant = torch.zeros(len(audio), len(text), dtype=torch.bool)
        relevant[a, t] = True
        groups = torch.empty_like(audio), torch.empty_like(text)
        groups[0][a], groups[1][t] = self.groups, self.groups
        return Gallery(audio, text, RelevanceMatrix(relevant), groups)


def checked_pairs(
    pairs: Tensor | None, rows: tuple[int, int], names: tuple[str, str]
) -> tuple[Tensor, list[str]]:
    """The pairs as distinct row numbers; without any, row i belongs to row i.

    Args:
        pairs: ``[P, 2]`` integers, or ``None``.
        rows: N and M.
        names: of both sides, in messages.

    Returns:
        ``[P, 2]`` int64, and sentences on what was left out.

    Raises:
        InputError: when there are none though the numbers of rows differ, or one names a row that
            is not there.
    """
    if pairs is None:
        if rows[0] != rows[1]:
            raise InputError(
                f"{names[0]} has {rows[0]:,} rows and {names[1]} {rows[1]:,}, so row i cannot be "
                "the partner of row i; say which rows belong together (--pairs)."
            )
        return torch.arange(rows[0])[:, None].expand(-1, 2).contiguous(), []
    if pairs.dim() != 2 or pairs.size(1) != 2 or pairs.is_floating_point() or len(pairs) == 0:
        raise InputError(
            f"The pairs are {str(pairs.dtype).removeprefix('torch.')} of shape "
            f"{list(pairs.shape)}; expected at least one row of two row numbers, one of "
            f"{names[0]} and one of {names[1]}."
        )
    pairs = pairs.detach().cpu().long()
    for side, (count, name) in enumerate(zip(rows, names, strict=True)):
        wrong = ((pairs[:, side] < 0) | (pairs[:, side] >= count)).nonzero().flatten()
        if len(wrong):
            raise InputError(
                f"Pair {int(wrong[0])} (counted from 0) names row {int(pairs[wrong[0], side])} of "
                f"{name}, which has rows 0 to {count - 1}; correct the pairs."
            )
    distinct = pairs.unique(dim=0)
    notes = []
    if len(distinct) < len(pairs):
        notes.append(f"{len(pairs) - len(distinct):,} pairs are there twice and count once.")
    else:
        distinct = pairs
    for side, (count, name) in enumerate(zip(rows, names, strict=True)):
        alone = count - len(distinct[:, side].unique())
        if alone:
            notes.append(
                f"{name}: {alone:,} of {count:,} rows have no partner; what needs pairs leaves "
                "them out."
            )
    return distinct, notes


def _groups(pairs: Tensor) -> Tensor:
    audio, a = pairs[:, 0].unique(return_inverse=True)
    text, t = pairs[:, 1].unique(return_inverse=True)
    if len(audio) == len(text) == len(pairs):
        return torch.arange(len(pairs))
    # Union-find: the two sides of a pair are one.
    root = list(range(len(audio) + len(text)))

    def find(x: int) -> int:
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    ours = a.tolist()
    for x, y in zip(ours, (t + len(audio)).tolist(), strict=True):
        root[find(y)] = find(x)
    numbers: dict[int, int] = {}
    return torch.tensor([numbers.setdefault(find(x), len(numbers)) for x in ours])
