"""All measures of one or two matrices of embeddings, as one record."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.analysis.angles import principal_axes
from atr_moco_plugin.analysis.between import between
from atr_moco_plugin.analysis.pairs import PairedRows, checked_pairs
from atr_moco_plugin.analysis.rows import unit_rows
from atr_moco_plugin.analysis.within import within
from atr_moco_plugin.errors import InputError

SCHEMA = 1
"""Version of the record's layout."""


@torch.no_grad()
def analyse(
    audio: Tensor | None,
    text: Tensor | None = None,
    pairs: Tensor | None = None,
    *,
    names: tuple[str, str] = ("audio", "text"),
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the geometry of one set of embeddings, or of two and what they share.

    The two need not be audio and text: anything with rows that belong together will do, also of
    different sizes, and one alone. Every row is scaled to length 1. Measures whose cost is
    quadratic in the rows take a seeded subset; each says how many rows it used. 100,000 x 512 on
    both sides take less than a minute on two cores.

    Args:
        audio: ``[N, d]``, or ``None``.
        text: ``[M, e]``, or ``None``.
        pairs: ``[P, 2]`` integers, a row of ``audio`` and one of ``text`` that belong together; a
            row may have several partners. Without it row i belongs to row i.
        names: of both sides, in the record and in messages.
        seed: of all subsets and shuffles.

    Returns:
        A record that is ready for JSON. Keys, each a measure or ``None`` where it is not defined:

        * ``sides``: of each side ``rows``, ``dim`` and lengths
          (:class:`~atr_moco_plugin.analysis.rows.UnitRows`);
        * ``rank``: as :class:`~atr_moco_plugin.rank.logger.RankLogger` writes it, raw and centred
          spectra and measures beside random vectors;
        * ``uniformity``, ``dimension`` (TwoNN), ``hubness``: of each side;
        * ``pairs``, and with pairs ``gap``, ``alignment``, ``cka``, ``mutual_neighbours``,
          ``principal_angles``, ``cross_covariance``, ``retrieval`` and ``retrieval_by_axes``;
        * ``notes``: sentences on what was found or left out.

    Raises:
        InputError: for embeddings or pairs that cannot be used, in one sentence.

    Example:
        >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> result = analyse(x, x + 0.1)
        >>> result["retrieval"]["cosine"]["a2t_r1"], result["pairs"]["pairs"]
        (100.0, 100)
    """
    given = {name: x for name, x in zip(names, (audio, text), strict=True) if x is not None}
    if not given:
        raise InputError("There is nothing to analyse: give embeddings of at least one side.")
    if names[0] == names[1]:
        raise ValueError(f"Both sides are named {names[0]!r}; give them different names.")
    if pairs is not None and len(given) == 1:
        raise InputError("Pairs need embeddings of both sides; give both, or no pairs.")
    sides = {name: unit_rows(x, name) for name, x in given.items()}
    rows = {name: side.rows for name, side in sides.items()}
    notes = [note for side in sides.values() for note in side.notes]
    both = None
    if len(rows) == 2:
        a, t = rows.values()
        checked, left_out = checked_pairs(pairs, (len(a), len(t)), names)
        both = PairedRows(a, t, checked)
        notes += left_out
    axes = {name: principal_axes(x) for name, x in rows.items()}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "seed": seed,
        "sides": {name: side.about for name, side in sides.items()},
        **within(rows, axes, seed=seed, notes=notes),
    }
    if both is not None:
        result |= between(both, (axes[names[0]], axes[names[1]]), names, seed=seed, notes=notes)
        result["pairs"]["by"] = "row" if pairs is None else "list"
    return {**result, "notes": notes}
