from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.analysis.pairs import PairedRows, checked_pairs
from atr_moco_plugin.errors import InputError

NAMES = ("audio", "text")
lists_of_pairs = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25, unique=True
).map(torch.tensor)


def rows_of(pairs: Tensor) -> PairedRows:
    return PairedRows(torch.eye(10), torch.eye(10), pairs)


@given(lists_of_pairs)
def test_groups_are_the_parts_that_hang_together(pairs: Tensor) -> None:
    groups = rows_of(pairs).groups
    # Slowly: whoever shares a row is of one group, again and again.
    slow = list(range(len(pairs)))
    for _ in pairs:
        for i, one in enumerate(pairs.tolist()):
            for j, other in enumerate(pairs.tolist()):
                if one[0] == other[0] or one[1] == other[1]:
                    slow[i] = slow[j] = min(slow[i], slow[j])
    assert [[a == b for b in slow] for a in slow] == (groups[:, None] == groups[None]).tolist()
    assert sorted(set(groups.tolist())) == list(range(len(set(slow))))


@given(lists_of_pairs, st.integers(0, 25), st.integers(0, 9))
def test_whole_groups_are_drawn_and_never_too_many(pairs: Tensor, most: int, seed: int) -> None:
    rows = rows_of(pairs)
    drawn = rows.drawn(most, seed)
    assert int(drawn.sum()) <= most
    assert not set(rows.groups[drawn].tolist()) & set(rows.groups[~drawn].tolist())
    assert torch.equal(drawn, rows.drawn(most, seed))
    if most >= len(pairs):
        assert bool(drawn.all())


@given(lists_of_pairs)
def test_one_to_one_has_no_row_twice_and_leaves_no_free_pair(pairs: Tensor) -> None:
    kept = rows_of(pairs).one_to_one().pairs
    a, t = kept.T.tolist()
    assert len(set(a)) == len(a) and len(set(t)) == len(t)
    assert all(x in a or y in t for x, y in pairs.tolist())


def test_a_gallery_has_the_rows_with_a_partner() -> None:
    gallery = rows_of(torch.tensor([[5, 1], [2, 1], [2, 7]])).gallery()
    assert gallery.audio.tolist() == [2, 5] and gallery.text.tolist() == [1, 7]
    assert gallery.relevance.block("a2t", 0, 2).tolist() == [[True, True], [True, False]]


def test_blocks_are_the_rows_of_the_pairs() -> None:
    many = PairedRows(
        torch.arange(20.0)[:, None], torch.arange(30.0)[:, None], torch.tensor([[3, 4], [19, 0]])
    )
    ((audio, text),) = many.blocks()
    assert audio.tolist() == [[3.0], [19.0]] and text.tolist() == [[4.0], [0.0]]
    means = many.means()
    assert means[0].tolist() == [11.0] and means[1].tolist() == [2.0]


def test_without_pairs_row_i_belongs_to_row_i() -> None:
    pairs, notes = checked_pairs(None, (3, 3), NAMES)
    assert pairs.tolist() == [[0, 0], [1, 1], [2, 2]] and notes == []


def test_what_is_twice_or_alone_is_told() -> None:
    pairs, notes = checked_pairs(torch.tensor([[0, 1], [0, 1], [2, 1]]), (3, 2), NAMES)
    assert pairs.tolist() == [[0, 1], [2, 1]]
    assert notes == [
        "1 pairs are there twice and count once.",
        "audio: 1 of 3 rows have no partner; what needs pairs leaves them out.",
        "text: 1 of 2 rows have no partner; what needs pairs leaves them out.",
    ]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "audio has 3 rows and text 2, so row i cannot be the partner of row i; say which "
         "rows belong together (--pairs)."),
        (torch.tensor([[0, 0], [0, 2]]), "Pair 1 (counted from 0) names row 2 of text, which has "
         "rows 0 to 1; correct the pairs."),
        (torch.tensor([[-1, 0]]), "Pair 0 (counted from 0) names row -1 of audio, which has rows "
         "0 to 2; correct the pairs."),
        (torch.zeros(0, 2, dtype=torch.long), "The pairs are int64 of shape [0, 2]; expected at "
         "least one row of two row numbers, one of audio and one of text."),
        (torch.tensor([[0.0, 1.0]]), "The pairs are float32 of shape [1, 2]; expected at least "
         "one row of two row numbers, one of audio and one of text."),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_used_are_one_sentence(pairs: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        checked_pairs(pairs, (3, 2), NAMES)
