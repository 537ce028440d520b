from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import LinearModel, linear_batch

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    Dcl,
    MLtm,
    MocoAtc,
    MocoAtcAtm,
    Siglip,
    SogClr,
    positive_pairs,
)
from atr_moco_plugin.criterion.positives import MODES
from atr_moco_plugin.errors import InputError

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


CRITERIA = (Atc, Dcl, Siglip, SogClr, MLtm, MocoAtc, MocoAtcAtm)


@pytest.mark.parametrize("kind", CRITERIA)
@pytest.mark.parametrize(
    ("clip_ids", "caption_ids", "message"),
    [
        (torch.arange(4), torch.zeros(1, dtype=torch.int64), r"`caption_ids` .*\[1\], but .* 4 it"),
        (torch.zeros(1, dtype=torch.int64), torch.arange(4), r"`clip_ids` has the shape \[1\]"),
        (torch.arange(4).float(), torch.arange(4), "`clip_ids` is of type torch.float32"),
        (torch.arange(4), torch.ones(4, dtype=torch.bool), "`caption_ids` is of type torch.bool"),
        (torch.zeros(4, 3).long(), torch.zeros(4, 3).long(), r"`clip_ids` has .* \[4, 3\]"),
        (torch.arange(4), torch.tensor([0, -1, 1, -1]), "`caption_ids` has -1: ids are 0 or above"),
        (torch.tensor([[0, -1], [-1, 2]] * 2), torch.ones(4, 2).long(), "`clip_ids` has -1"),
        (torch.arange(4), torch.ones(4, 2).long(), r"\[4\] and `caption_ids` \[4, 2\]: mixtures"),
    ],
)
def test_ids_that_would_pair_other_items_are_refused(
    kind: type[Atc], clip_ids: torch.Tensor, caption_ids: torch.Tensor, message: str
) -> None:
    """An id for all made every pair of a batch a positive one."""
    criterion = kind(LinearModel(), kind.config_class()).train()
    criterion.total_steps = 10
    batch = {**linear_batch(), "clip_ids": clip_ids, "caption_ids": caption_ids}
    with pytest.raises(InputError, match=message):
        criterion(**batch)


def test_a_caption_for_each_clip() -> None:
    criterion = Atc(LinearModel(), AtcConfig())
    batch = linear_batch()
    batch["text"] = {"x": batch["text"]["x"][:3]}
    with pytest.raises(InputError, match="4 clips and 3 captions"):
        criterion(**batch)


def test_unknown_mode_is_named() -> None:
    a = torch.tensor([1])
    with pytest.raises(ValueError, match="'clips'.*pair, clip, clip_or_caption"):
        positive_pairs(a, a, a, a, "clips")
