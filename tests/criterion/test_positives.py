from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.criterion import positive_pairs
from atr_moco_plugin.criterion.positives import MODES

ids = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8)


@given(rows=ids, columns=ids, mode=st.sampled_from(MODES))
def test_equals_the_definition(rows, columns, mode) -> None:
    row_clips, row_captions = torch.tensor(rows).T
    column_clips, column_captions = torch.tensor(columns).T
    marked = positive_pairs(row_clips, row_captions, column_clips, column_captions, mode)
    for i, (clip, caption) in enumerate(rows):
        for j, (other_clip, other_caption) in enumerate(columns):
            expected = {
                "pair": clip == other_clip and caption == other_caption,
                "clip": clip == other_clip,
                "clip_or_caption": clip == other_clip or caption == other_caption,
            }[mode]
            assert bool(marked[i, j]) == expected


def test_63_bit_ids_are_told_apart() -> None:
    a = torch.tensor([2**62, 2**62 + 1])
    assert positive_pairs(a, a, a, a, "clip").tolist() == [[True, False], [False, True]]


def test_unknown_mode_is_named() -> None:
    a = torch.tensor([1])
    with pytest.raises(ValueError, match="'clips'.*pair, clip, clip_or_caption"):
        positive_pairs(a, a, a, a, "clips")
