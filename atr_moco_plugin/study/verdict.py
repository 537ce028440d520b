"""Which queue size is recommended and why, in sentences with figures."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from atr_moco_plugin.rank.growth import SHARE, TOLERANCE
from atr_moco_plugin.study.findings import SizeSummary, Step, Study, Variant

RULE = (
    f"A longer queue is worth it when the RankMe of its centred rows gains more than "
    f"{100 * TOLERANCE:.0f} % per doubling and more than {100 * SHARE:.0f} % of what random unit "
    "vectors of the same shapes gain, in one modality at least, and when it is no longer than an "
    "epoch: beyond that it holds every item more than once, and its rank grows by the drift of the "
    "encoder between the copies. The first size from which the next is not worth it is "
    "recommended. Rank says how many directions the negatives span, not how well they train: look "
    "at the R-sum beside it."
)
"""The rule in words."""


def verdict(study: Study, variant: Variant) -> tuple[str, str]:
    """The recommended size as a headline, and its ground in sentences."""
    if variant.recommended is None:
        heading = "No recommendation."
        reasons = ["The rule compares neighbouring queue sizes, so it needs two above 0."]
        reasons += _never_filled(variant)
    else:
        heading = f"Recommended queue size: {variant.recommended.queue_size:,}."
        reasons = list(_by_rank(study, variant, variant.recommended))
    return heading, " ".join([*reasons, _by_retrieval(study, variant), *_of_auto(study, variant)])


def _by_rank(study: Study, variant: Variant, size: SizeSummary) -> Iterator[str]:
    before = next((s for s in variant.steps if s.sizes[1] == size.queue_size), None)
    after = next((s for s in variant.steps if s.sizes[0] == size.queue_size), None)
    if before is not None:
        yield f"The step to it was worth it: {_gains(before)}."
    if after is not None:
        yield f"The next one is not: {_gains(after)}{_drift(after, study)}."
    elif all(of.filled for of in variant.sizes):
        yield "It is the longest queue tried, and a longer one may be worth it too."
    else:
        yield from _never_filled(variant)
    if size.exceeds_training:
        yield f"It is longer than an epoch of {study.train_pairs:,} pairs."


def _never_filled(variant: Variant) -> Iterator[str]:
    """On the first size that ends the steps, since its queue is not what it says."""
    for size in variant.sizes:
        if not size.filled:
            yield (
                f"The queue of {size.queue_size:,} rows was never filled ({size.rows:,} rows were "
                "written): train longer to judge it."
            )
            return


def _by_retrieval(study: Study, variant: Variant) -> str:
    """Whether the best mean validation R-sum agrees, or is no better than chance has it."""
    best, size = variant.best(study.valid_split), variant.recommended
    top = best.r_sum[study.valid_split]
    words = f"The best mean R-sum on {study.valid_split} is {top} with {_rows(best)}"
    if size is None:
        return f"{words}."
    if best is size:
        return f"{words}, which agrees."
    own = size.r_sum[study.valid_split]
    words += f" and {own} with the recommended {_rows(size)}"
    if min(len(own.values), len(top.values)) < 2:
        return f"{words}; one seed has no spread to compare the difference with."
    lead, spread = top.mean - own.mean, sqrt(top.std**2 + own.std**2)
    difference = f"a difference of {lead:.1f}, where that of two runs has a spread of {spread:.1f}"
    if lead <= spread:
        return f"{words}: {difference}, so retrieval does not tell them apart."
    return f"{words}: {difference}, so by retrieval the other size is better."


def _of_auto(study: Study, variant: Variant) -> Iterator[str]:
    """Whether ``queue_size: auto`` chose within the interval of the best size."""
    auto, best = variant.auto, variant.best(study.valid_split)
    if auto is None:
        return
    chosen = ", ".join(f"{rows:,}" for rows in auto.chosen)
    figure = auto.r_sum[study.valid_split]
    words = f"`queue_size: auto` ended with {chosen} rows and an R-sum of {figure}"
    lead = auto.beside(best, study.valid_split)
    if lead is None or lead.interval is None:
        yield f"{words}; fewer than two seeds in common with {_rows(best)} give no interval."
        return
    low, high = lead.interval
    if low > 0:
        answer = "it chose better than any size that was tried"
    elif high >= 0:
        answer = "it chose within the interval of the best"
    else:
        answer = "it chose worse than the best"
    yield (
        f"{words}, {lead.mean:+.1f} [{low:+.1f}, {high:+.1f}] beside {_rows(best)}, seed by seed: "
        f"{answer}."
    )


def _gains(step: Step) -> str:
    before, after = step.sizes
    gains = " and ".join(
        f"{growth} ({name}; random vectors {100 * growth.noise_gain:.1f} %)"
        for name, growth in step.modalities.items()
    )
    return f"from {before:,} to {after:,} rows the centred RankMe gains {gains} per doubling"


def _drift(step: Step, study: Study) -> str:
    if not step.beyond_epoch:
        return ""
    return (
        f", but an epoch has {study.train_pairs:,} pairs, so that it holds items more than once "
        "and gains by the drift of the encoder between the copies"
    )


def _rows(size: SizeSummary) -> str:
    return f"{size.queue_size:,} rows" if size.queue_size else "no queue"
