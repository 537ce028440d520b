"""What two sets of embeddings of the same items share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.analysis.angles import (
    PrincipalAxes,
    overlap,
    principal_angles,
    random_angles,
)
from atr_moco_plugin.analysis.neighbours import mutual_neighbours
from atr_moco_plugin.analysis.pairs import Gallery, PairedRows
from atr_moco_plugin.analysis.retrieval import retrieve
from atr_moco_plugin.analysis.shared_axes import (
    ROUNDING,
    SHUFFLES,
    doubling,
    recall_by_axes,
    shared_axes,
    shuffled_values,
)
from atr_moco_plugin.analysis.similarity import linear_cka
from atr_moco_plugin.analysis.sphere import mean_row, paired_alignment, random_gap
from atr_moco_plugin.analysis.within import NORMALIZER, SAMPLE, THRESHOLD
from atr_moco_plugin.evaluation.bootstrap import LEVEL
from atr_moco_plugin.evaluation.chance import chance_metrics
from atr_moco_plugin.evaluation.hubness import HUBNESS_K, hubness, top_counts
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.rank.measures import modality_gap
from atr_moco_plugin.rank.spectrum import spectrum_measures

HELD_OUT = 2048
"""Pairs that are kept apart to retrieve along the axes of the others, at most half of all."""

JUDGED = 10
"""Fewer pairs are not called unrelated, which they may seem by accident."""

BINS = 50
"""Of the histogram of cosines."""

HELD_VARIANCE = 0.9
"""Principal angles are between the axes that hold this share of the variance of each side."""


def between(
    rows: PairedRows,
    axes: tuple[PrincipalAxes, PrincipalAxes],
    names: tuple[str, str],
    *,
    seed: int,
    notes: list[str],
) -> dict[str, Any]:
    """The measures of both sides together.

    Args:
        rows: both sides of length 1, and at least one pair.
        axes: the principal axes of both sides.
        names: of both sides.
        seed: of the subsets and shuffles.
        notes: sentences are added here.

    Returns:
        ``pairs``, ``gap``, ``alignment``, ``cka``, ``mutual_neighbours``, ``principal_angles``,
        ``cross_covariance``, ``retrieval`` and ``retrieval_by_axes`` of
        :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    one_space = rows.audio.size(1) == rows.text.size(1)
    if not one_space:
        notes.append(
            f"{names[0]} has {rows.audio.size(1)} dimensions and {names[1]} {rows.text.size(1)}: "
            "they are in different spaces, so what needs one space (cosines, gap, alignment, "
            "angles) is left out."
        )
    elif torch.equal(rows.audio, rows.text):
        notes.append(f"{names[0]} and {names[1]} are the same numbers; was one file given twice?")
    return {
        "pairs": {
            "pairs": len(rows),
            "groups": int(rows.groups.max()) + 1,
            "rows": [len(rows.pairs[:, side].unique()) for side in (0, 1)],
        },
        "gap": _gap(rows) if one_space else None,
        "alignment": _alignment(rows, notes) if one_space else None,
        "cka": _cka(rows, notes),
        "mutual_neighbours": _mutual(rows, seed),
        "principal_angles": _angles(rows, *axes) if one_space else None,
        "cross_covariance": _cross_covariance(rows, seed),
        "retrieval": _retrieval(rows, seed, notes) if one_space else None,
        "retrieval_by_axes": _by_axes(rows, seed, notes, one_space),
    }


def _gap(rows: PairedRows) -> dict[str, Any]:
    means = mean_row(rows.audio), mean_row(rows.text)
    return {
        "rows": [len(rows.audio), len(rows.text)],
        "value": modality_gap(rows.audio, rows.text),
        "random": random_gap(means, (len(rows.audio), len(rows.text))),
    }


def _alignment(rows: PairedRows, notes: list[str]) -> dict[str, Any]:
    found = paired_alignment(rows)
    if len(rows) >= JUDGED and not found.closer:
        notes.append(
            f"Pairs are hardly closer than shuffled ones (mean squared distance {found.value:.3f} "
            f"and {found.shuffled:.3f}): are the rows of both sides in the same order, and of one "
            "model?"
        )
    return {"pairs": len(rows), **found._asdict()}


def _cka(rows: PairedRows, notes: list[str]) -> dict[str, Any] | None:
    single = rows.one_to_one()
    found = linear_cka(single)
    if found is None:
        notes.append("The paired rows of a side are all equal, so there is no CKA.")
        return None
    return {"pairs": len(single), **found._asdict()}


def _mutual(rows: PairedRows, seed: int) -> dict[str, Any] | None:
    single = rows.one_to_one()
    single = single.of(single.pairs[single.drawn(SAMPLE, seed)])
    n = len(single)
    if n < 2:
        return None
    k = min(HUBNESS_K, n - 1)
    a, t = (x[single.pairs[:, i]] for i, x in enumerate((rows.audio, rows.text)))
    return {"pairs": n, "k": k, "value": mutual_neighbours(a, t, k), "random": k / (n - 1)}


def _angles(rows: PairedRows, audio: PrincipalAxes, text: PrincipalAxes) -> dict[str, Any]:
    dim = rows.audio.size(1)
    r, s = audio.holding(HELD_VARIANCE), text.holding(HELD_VARIANCE)
    a, t = audio.axes[:, :r], text.axes[:, :s]
    counts = doubling(min(audio.axes.size(1), text.axes.size(1)))
    return {
        "rows": [len(rows.audio), len(rows.text)],
        "dim": dim,
        "variance": HELD_VARIANCE,
        "axes": [r, s],
        "degrees": principal_angles(a, t).rad2deg().tolist(),
        "random_degrees": random_angles(dim, r, s).rad2deg().tolist(),
        "overlap": overlap(a, t),
        "random_overlap": max(r, s) / dim,
        "overlap_by_axes": {
            str(count): overlap(audio.axes[:, :count], text.axes[:, :count]) for count in counts
        },
    }


def _cross_covariance(rows: PairedRows, seed: int) -> dict[str, Any] | None:
    if len(rows) < 2:
        return None
    noise = shuffled_values(rows, seed=seed)
    largest = float(noise.max())
    values, shuffled = (
        # The rest is rounding, which would read as a long tail.
        torch.where(found > rounding * found[0], found, 0.0)
        for found, rounding in ((shared_axes(rows).values, 1e-12), (noise.mean(dim=0), ROUNDING))
    )
    scale = float(values[0]) or 1.0
    return {
        "pairs": len(rows),
        "largest": float(values[0]),
        # A shuffle of few rows may be their order, and differs from it by the rounding of float32.
        "above_shuffled": int((values > (1 + ROUNDING) * largest).sum()),
        **_measures(values),
        "spectrum": (values / scale).tolist(),
        "shuffled": {
            "shuffles": SHUFFLES,
            "largest": largest,
            **_measures(shuffled),
            "spectrum": (shuffled / scale).tolist(),
        },
    }


def _measures(values: Tensor) -> dict[str, float | None]:
    return spectrum_measures(values, normalizer=NORMALIZER, threshold=THRESHOLD).measures()


def _retrieval(rows: PairedRows, seed: int, notes: list[str]) -> dict[str, Any] | None:
    drawn = rows.drawn(SAMPLE, seed)
    if not bool(drawn.any()):
        notes.append(
            f"All pairs hang together through shared rows in groups of more than {SAMPLE:,}, so "
            "there is no subset to retrieve in."
        )
        return None
    part = rows.of(rows.pairs[drawn])
    gallery = part.gallery()
    scores = _cosines(part, gallery)
    found = retrieve(scores, gallery)
    return {
        "pairs": len(part),
        "rows": [len(gallery.audio), len(gallery.text)],
        "cosine": found.figures,
        "chance": chance_metrics(gallery.relevance),
        "intervals": {"level": LEVEL, "cosine": found.intervals},
        "histogram": _histogram(scores, gallery),
        "hubness": {"a2t": _hubs(scores), "t2a": _hubs(scores.T)},
    }


def _hubs(scores: Tensor) -> dict[str, Any]:
    """Of the items ``[queries, items]``."""
    items = scores.size(1)
    counts = [top_counts(block) for _, block in query_blocks(scores, items)]
    return {"k": min(HUBNESS_K, items), **hubness(torch.stack(counts).sum(dim=0))}


def _histogram(scores: Tensor, gallery: Gallery) -> dict[str, Any]:
    """How the cosines of pairs and of all others are spread, in percent of each."""
    low, high = float(scores.min()), float(scores.max())
    found: dict[str, Any] = {"low": low, "high": high}
    if low == high:
        return found
    counts = torch.zeros(2, BINS, dtype=torch.float64)
    sums = torch.zeros(2, dtype=torch.float64)
    for start, block in query_blocks(scores, scores.size(1)):
        own = gallery.relevance.block("a2t", start, start + len(block))
        for side, values in enumerate((block[own], block[~own])):
            counts[side] += torch.histc(values, BINS, low, high)
            sums[side] += values.sum(dtype=torch.float64)
    for side, name in enumerate(("pairs", "others")):
        total = counts[side].sum()
        if total > 0:
            found[name] = (100 * counts[side] / total).tolist()
            found[f"{name}_mean"] = float(sums[side] / total)
    return found


def _by_axes(
    rows: PairedRows, seed: int, notes: list[str], one_space: bool
) -> dict[str, Any] | None:
    held = rows.drawn(min(HELD_OUT, len(rows) // 2), seed)
    fitted = rows.of(rows.pairs[~held])
    if not bool(held.any()) or len(fitted) < 2:
        notes.append(
            "No pairs can be kept apart from the others (all share rows, or there are fewer than "
            "four), so there is no retrieval by axes: axes of the pairs that are retrieved would "
            "flatter even noise."
        )
        return None
    axes = shared_axes(fitted)
    part = rows.of(rows.pairs[held])
    gallery = part.gallery()
    # Below that are the rounding errors of float32.
    real = int((axes.values > 1e-6 * axes.values[0]).sum())
    by_axes = recall_by_axes(axes, part, gallery, doubling(real)) if real > 1 else {}
    cosine = retrieve(_cosines(part, gallery), gallery) if one_space else None
    return {
        "pairs": len(part),
        "rows": [len(gallery.audio), len(gallery.text)],
        "fitted_on": len(fitted),
        "axes": {str(count): of.figures for count, of in by_axes.items()},
        "cosine": cosine.figures if cosine else None,
        "chance": chance_metrics(gallery.relevance),
        "intervals": {
            "level": LEVEL,
            "axes": {str(count): of.intervals for count, of in by_axes.items()},
            "cosine": cosine.intervals if cosine else None,
        },
    }


def _cosines(rows: PairedRows, gallery: Gallery) -> Tensor:
    # Rounded to float32, so that equal texts tie as in every evaluation.
    cosines = rows.audio[gallery.audio].double() @ rows.text[gallery.text].double().T
    return cosines.float()
