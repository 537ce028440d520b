"""The axes that two sets of embeddings share: the singular value decomposition of their
cross-covariance, and how well one retrieves along the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis.pairs import Gallery, PairedRows
from atr_moco_plugin.analysis.retrieval import Retrieved, retrieve

SHUFFLES = 19
"""How often pairs are shuffled; see :func:`shuffled_values` for what follows from it."""

ROUNDING = 1e-5
"""Up to this share of the largest, one of :func:`shuffled_values` may be rounding of float32."""

_ROWS = 4096


class SharedAxes(NamedTuple):
    """``C = U diag(s) V^T``, the directions in which both sides vary together.

    Attributes:
        audio: ``[d, K]`` float64, U.
        values: ``[K]`` float64, s: covariances along the axes, descending.
        text: ``[e, K]`` float64, V.
        means: the mean rows ``[d]`` and ``[e]`` that were removed.
    """

    audio: Tensor
    values: Tensor
    text: Tensor
    means: tuple[Tensor, Tensor]


def cross_covariance(rows: PairedRows, means: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """``C = 1/P sum_p (a_p - mean a) (t_p - mean t)^T`` over P pairs.

    Args:
        rows: both sides; their sizes d and e may differ.
        means: the mean rows, where they are known.

    Returns:
        ``[d, e]`` float64.
    """
    audio, text = rows.means() if means is None else means
    total = torch.zeros(len(audio), len(text), dtype=torch.float64)
    for a, t in rows.blocks():
        total.addmm_((a - audio).T, t - text)
    return total / len(rows)


def shared_axes(rows: PairedRows) -> SharedAxes:
    """The singular value decomposition of :func:`cross_covariance`.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> pairs = torch.arange(4)[:, None].expand(-1, 2)
        >>> shared_axes(PairedRows(x, x, pairs)).values.tolist()  # the variances of the columns
        [2.0, 0.5]
    """
    means = rows.means()
    u, values, vt = torch.linalg.svd(cross_covariance(rows, means), full_matrices=False)
    return SharedAxes(u, values, vt.T, means)


def shuffled_values(rows: PairedRows, seed: int = 0) -> Tensor:
    """The singular values where nothing is shared: those of shuffled pairs.

    They are not 0: N rows are correlated by chance, the more the fewer they are. An axis is worth
    believing where its value is above the largest of all of these. Pairs that share nothing are
    one shuffle more, so the largest of all is theirs in one of :data:`SHUFFLES` + 1 cases: in 5 %
    noise has an axis that stands above it.

    A row of ``audio`` is exchanged for another with all of its partners: captions of one clip are
    alike, and independent draws would make the noise too small.

    Args:
        rows: the pairs to shuffle.
        seed: of the first shuffle.

    Returns:
        ``[SHUFFLES, K]`` float64, descending in each shuffle. Products and values are computed in
        float32, which takes less time: the noise is needed to a few digits, and what is below
        :data:`ROUNDING` of the largest is rounding.
    """
    audio, place = rows.pairs[:, 0].unique(return_inverse=True)
    means = rows.means()
    # A row is paired with all partners of another or with none, so their sums are enough. These add
    # up to 0, so that no mean need be taken from the other side.
    partners = torch.zeros(len(audio), len(means[1]))
    start = 0
    for _, text in rows.blocks():
        partners.index_add_(0, place[start : start + len(text)], (text - means[1]).float())
        start += len(text)
    return torch.stack([_shuffled(rows, audio, partners, seed + n) for n in range(SHUFFLES)])


def _shuffled(rows: PairedRows, audio: Tensor, partners: Tensor, seed: int) -> Tensor:
    order = torch.randperm(len(audio), generator=torch.Generator().manual_seed(seed))
    total = torch.zeros(rows.audio.size(1), partners.size(1), dtype=torch.float64)
    for own, sums in zip(audio[order].split(_ROWS), partners.split(_ROWS), strict=True):
        total += rows.audio[own].float().T @ sums
    values: Tensor = torch.linalg.svdvals((total / len(rows)).float())
    return values.double()


def project(axes: SharedAxes, audio: Tensor, text: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Both sides along the first axes, without their means and of length 1.

    Args:
        axes: of K axes.
        audio: ``[A, d]``.
        text: ``[C, e]``.
        count: axes to keep, at most K.

    Returns:
        ``[A, count]`` and ``[C, count]`` float64. With ``count = d = e`` nothing is left out: the
        text is rotated onto the audio (orthogonal Procrustes).
    """
    a = (audio.double() - axes.means[0]) @ axes.audio[:, :count]
    t = (text.double() - axes.means[1]) @ axes.text[:, :count]
    return normalize(a, dim=1), normalize(t, dim=1)


def recall_by_axes(
    axes: SharedAxes, rows: PairedRows, gallery: Gallery, counts: Sequence[int]
) -> dict[int, Retrieved]:
    """Retrieval by the cosine along the first axes, for several numbers of them.

    The axes must be of *other* pairs than those of the gallery. Along axes of its own pairs even
    noise is retrieved without error as soon as there are fewer pairs than dimensions.

    Args:
        axes: of other pairs.
        rows: both sides.
        gallery: the rows of both sides to retrieve in.
        counts: numbers of axes.

    Returns:
        By number of axes.
    """
    audio, text = rows.audio[gallery.audio], rows.text[gallery.text]
    found = {}
    for count in counts:
        a, t = project(axes, audio, text, count)
        # In float32 equal texts tie, as in every evaluation.
        found[count] = retrieve((a @ t.T).float(), gallery)
    return found


def doubling(most: int) -> list[int]:
    """2, 4, 8, ... and ``most`` itself. Along one axis all cosines are 1 or -1 and tie."""
    return [*(2**i for i in range(1, most.bit_length()) if 2**i < most), most]
