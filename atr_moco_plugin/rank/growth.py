"""Whether a longer queue is worth it: what its rank gains, beside what noise gains."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log2

from torch import Tensor

from atr_moco_plugin.rank.random_vectors import random_baseline
from atr_moco_plugin.rank.spectrum import singular_values, spectrum_measures

TOLERANCE = 0.05
"""A gain of at most 5 % per doubling counts as none. Even random vectors gain less once there are
four times as many rows as dimensions, so there is nothing left to see."""

SHARE = 0.1
"""A gain of at most a tenth of the gain of random vectors counts as none: the new rows repeat
directions that the queue has already. With a tenth, a space of R equally strong directions gets 2 R
rows whatever its dimension, as random vectors do. With a quarter it would get R rows, and 80 % of
its rank, wherever R is well below the dimension."""


@dataclass(frozen=True)
class Growth:
    """What a longer queue gained over a shorter one.

    RankMe of the centred rows rises with their number even for noise, so its gain is judged beside
    that of random unit vectors of the same two shapes::

        worth_it  =  gain > max(TOLERANCE, SHARE * noise_gain)

    Attributes:
        gain: relative gain of the centred RankMe per doubling of the rows: 0.2 is 20 %.
        noise_gain: the same of random unit vectors.
    """

    gain: float
    noise_gain: float

    def __str__(self) -> str:
        return f"{100 * self.gain:.1f} %" if self.gain < inf else "something from nothing"

    @property
    def worth_it(self) -> bool:
        """Whether the longer queue shows directions that the shorter one does not."""
        return self.gain > max(TOLERANCE, SHARE * self.noise_gain)


def centered_rankme(embeddings: Tensor) -> float:
    """RankMe (see :class:`~atr_moco_plugin.rank.spectrum.RankMeasures`) of centred ``[N, d]``."""
    values = singular_values(embeddings, center=True)
    return spectrum_measures(values, normalizer="max", threshold=0.0).rankme


def growth(rows: tuple[int, int], rankme: tuple[float, float], dim: int) -> Growth:
    """Compare two queues by their numbers of rows and their centred RankMe.

    Args:
        rows: valid rows of the shorter and of the longer queue.
        rankme: centred RankMe of the shorter and of the longer queue.
        dim: embedding size d.

    Returns:
        The gains per doubling. They are 0 if the second queue is not the longer one, as when
        neither was ever filled, and infinite from a queue without any variation.

    Example:
        >>> growth((32, 64), (14.9, 15.5), dim=256).worth_it  # 16 directions, both queues see them
        False
        >>> growth((32, 64), (28.9, 51.6), dim=256).worth_it  # 64 directions
        True
    """
    if rows[1] <= rows[0]:
        return Growth(0.0, 0.0)
    if rankme[0] <= 0 or rows[0] < 2:
        return Growth(inf if rankme[1] > 0 else 0.0, 0.0)
    exponent = 1 / log2(rows[1] / rows[0])
    noise = [random_baseline(n, dim, center=True).rankme for n in rows]
    return Growth(*((after / before) ** exponent - 1 for before, after in (rankme, noise)))


def growth_of_last_half(newest_half: Tensor, whole: Tensor) -> Growth:
    """What one full queue gained by its older half.

    Args:
        newest_half: ``[N / 2, d]`` the rows a queue of half the size would hold.
        whole: ``[N, d]`` all rows.
    """
    return growth(
        (len(newest_half), len(whole)),
        (centered_rankme(newest_half), centered_rankme(whole)),
        whole.size(1),
    )
