"""Figures that may choose the best checkpoint."""

from __future__ import annotations

import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.score_metric import check_score, splits_in_two_roles


def test_a_score_that_is_reported_passes() -> None:
    for metric in (None, "r_sum", "a2t_r1", "audio_rankme"):
        check_score(metric, one_clip_each=True, reranks=False)
    check_score("reranked_r_sum", one_clip_each=False, reranks=True)


def test_any_other_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="rsum, which no validation reports; .* such as r_sum"):
        check_score("rsum", one_clip_each=False, reranks=False)
    with pytest.raises(InputError, match="do not re-rank; choose t2a_r5"):
        check_score("reranked_t2a_r5", one_clip_each=True, reranks=False)
    with pytest.raises(InputError, match="do not re-rank; set it so"):
        check_score("reranked_r_sum", one_clip_each=True, reranks=False, to_rerank="set it so")


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        (("train", "valid", "test"), []),
        (("train", "valid", None), []),
        (("train", None, None), []),
        (("train", "train", "test"), ["dataset.valid_split"]),
        (("train", "valid", "train"), ["evaluation.test_split"]),
        (("train", "valid", "valid"), ["evaluation.test_split"]),
        (
            ("a", "a", "a"),
            ["dataset.valid_split", "evaluation.test_split", "evaluation.test_split"],
        ),
    ],
)
def test_a_split_in_two_roles_is_named(splits: tuple[str, str, str], named: list[str]) -> None:
    notes = list(splits_in_two_roles(*splits))
    assert [note.split("`")[1] for note in notes] == named
