"""Corrections by name: the parameters that are tried, and what each makes of a query's cosines.

:mod:`~atr_moco_plugin.evaluation.corrections` has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from atr_moco_plugin.evaluation.corrections import (
    bounded_k,
    dual_softmax,
    first_hits,
    inverted_softmax_offsets,
    qb_norm,
    sinkhorn_offsets,
    top_means,
)
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import Direction

Parameters = dict[str, float]
"""Of a correction, by name: ``k`` (whole), ``alpha``, ``beta``."""

Rescore = Callable[[Tensor], Tensor]
"""From ``[n, N]`` cosines of n queries to ``[n, N]`` float64 scores."""

_BETAS: tuple[Parameters, ...] = tuple(
    {"beta": beta} for beta in (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
)
_NEIGHBOURS: tuple[Parameters, ...] = tuple({"k": k} for k in (5, 10, 20, 50))

INDUCTIVE: dict[str, tuple[Parameters, ...]] = {
    "nnn": tuple(
        {"k": k, "alpha": alpha} for alpha in (0.25, 0.5, 0.75, 1.0) for k in (1, 4, 16, 64, 128)
    ),
    "inverted_softmax": _BETAS,
    "qb_norm": _BETAS,
    "csls": _NEIGHBOURS,
}
"""Corrections by a bank of training items, each with the parameters that are tried."""

TRANSDUCTIVE: dict[str, tuple[Parameters, ...]] = {
    "sinkhorn": _BETAS,
    "dual_softmax": _BETAS,
    "csls_test": _NEIGHBOURS,
}
"""Corrections by the test queries themselves, each with the parameters that are tried."""

TITLES = {
    "nnn": "NNN",
    "inverted_softmax": "inverted softmax",
    "qb_norm": "QB-Norm",
    "csls": "CSLS",
    "sinkhorn": "Sinkhorn",
    "dual_softmax": "dual softmax",
    "csls_test": "CSLS, test queries",
}
"""Name of a correction to its title in tables."""


class Pair(NamedTuple):
    """The two sides of a split, encoded.

    Attributes:
        audio: the clips.
        text: the captions.
    """

    audio: Encoded
    text: Encoded

    def queries(self, direction: Direction) -> Tensor:
        """``[Q, d]``: every query of a direction, equal captions as often as they are there."""
        return self.audio.embeddings if direction == "a2t" else self.text.embeddings

    def bank(self, direction: Direction) -> Tensor:
        """``[B, d]``: the queries of a direction, equal captions once."""
        # A caption that many clips have, such as a class, would fill all k places by itself.
        return self.audio.distinct if direction == "a2t" else self.text.distinct

    def items(self, direction: Direction) -> Encoded:
        """What a query of a direction is after."""
        return self.text if direction == "a2t" else self.audio


def tried(name: str, bank: int) -> list[Parameters]:
    """The parameters of a correction that are tried with so many rows in the bank, each once."""
    grid = [bounded(parameters, bank) for parameters in (INDUCTIVE | TRANSDUCTIVE)[name]]
    return [parameters for i, parameters in enumerate(grid) if parameters not in grid[:i]]


def rescorings(
    name: str, parameters: Sequence[Parameters], bank: Tensor, items: Encoded
) -> Iterator[Rescore]:
    """A correction with each of several parameters, at little more than the cost of one.

    Args:
        name: of :data:`INDUCTIVE` or :data:`TRANSDUCTIVE`.
        parameters: ``k`` is bounded by a tenth of the bank.
        bank: ``[B, d]`` of the kind of the queries; for a transductive one all test queries.
        items: the N items of the gallery.

    Returns:
        One for each of ``parameters``. Equal items have equal offsets, so that they still tie.
    """
    distinct, rows = items.distinct, items.rows
    parameters = [bounded(chosen, len(bank)) for chosen in parameters]
    if name in ("nnn", "csls", "csls_test"):
        ks = sorted({int(chosen["k"]) for chosen in parameters})
        means = dict(zip(ks, top_means(bank, distinct, ks), strict=True))
        for chosen in parameters:
            yield _less(_even(chosen.get("alpha", 0.5) * means[int(chosen["k"])])[rows])
        return
    hubs = first_hits(bank, distinct)[rows] if name == "qb_norm" else None
    for chosen in parameters:
        beta = chosen["beta"]
        if name == "sinkhorn":
            # Over all items: one that is there twice takes two shares of the queries.
            _, of_items = sinkhorn_offsets(bank, items.embeddings, beta)
            once = of_items.new_empty(len(distinct)).index_put((rows,), of_items)
            yield _less(_even(once)[rows])
            continue
        offsets = _even(inverted_softmax_offsets(bank, distinct, beta))[rows]
        if name == "inverted_softmax":
            yield _less(offsets)
        elif hubs is not None:
            yield _qb_norm(offsets, hubs)
        else:
            yield _dual_softmax(offsets, beta)


def bounded(parameters: Parameters, bank: int) -> Parameters:
    """Parameters with ``k`` bounded by a tenth of so many rows in the bank."""
    if "k" not in parameters:
        return parameters
    return {**parameters, "k": bounded_k(int(parameters["k"]), bank)}


def _even(offsets: Tensor) -> Tensor:
    """Offsets without their last digits, which the place of an item in a matrix product decides."""
    return offsets.float().double()


def _less(offsets: Tensor) -> Rescore:
    return lambda cosines: cosines.double() - offsets


def _qb_norm(offsets: Tensor, hubs: Tensor) -> Rescore:
    return lambda cosines: qb_norm(cosines, offsets, hubs)


def _dual_softmax(offsets: Tensor, beta: float) -> Rescore:
    return lambda cosines: dual_softmax(cosines, offsets, beta)
