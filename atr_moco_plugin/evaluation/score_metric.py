"""Whether a run can choose its best checkpoint by a figure, and what the figures are worth."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split_figures import figure_names


def check_score(
    metric: str | None, *, one_clip_each: bool, reranks: bool, to_rerank: str = ""
) -> None:
    """Refuse a score that no validation reports; the first validation would fail over it.

    Args:
        metric: ``regime.score_metric``; ``None`` is always possible.
        one_clip_each: whether every caption belongs to one clip, not to all clips of a label.
        reranks: whether a validation re-ranks.
        to_rerank: what to set so that validations re-rank; empty where they never do.

    Raises:
        InputError: naming the key and what there is.
    """
    names = figure_names(one_clip_each=one_clip_each, reranks=reranks)
    if metric is None or metric in names:
        return
    if metric in figure_names(one_clip_each=one_clip_each, reranks=True):
        raise InputError(
            f"`regime.score_metric` is {metric}, but validations do not re-rank; "
            f"{to_rerank or 'choose ' + metric.removeprefix('reranked_')}."
        )
    near = get_close_matches(metric, sorted(names))
    raise InputError(
        f"`regime.score_metric` is {metric}, which no validation reports; choose a figure of "
        f"metrics/valid.jsonl, such as {' or '.join(near or ['r_sum'])}."
    )


def splits_in_two_roles(train: str, valid: str | None, test: str | None) -> Iterator[str]:
    """One sentence for each split whose figures say less than they seem to.

    Args:
        train: the split that is trained on.
        valid: the split whose score chooses the checkpoint.
        test: the split that is evaluated at the end.
    """
    for key, split in (("dataset.valid_split", valid), ("evaluation.test_split", test)):
        if split == train:
            yield f"`{key}` is {split}, which is trained on: its figures are of known clips."
    if test is not None and test == valid:
        yield (
            f"`evaluation.test_split` is {test}, which also chooses the checkpoint: its figures "
            "are too good."
        )
