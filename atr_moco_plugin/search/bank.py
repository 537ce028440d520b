"""A bank of sentences, and how near windows are to it: what a corrected search takes off cosines.

Some windows are near to every sentence and are found too often. Nearest neighbour normalisation
(NNN) ranks by ``cosine - alpha * offset``, where the offset of a window is the mean of its highest
cosines with a bank of sentences. It is one number a window, whatever is asked.

Shapes: B sentences of a bank, N windows, d embedding size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.corrections import bounded_k, nnn_offsets

ALPHA = 0.75
"""How much of the offset is taken off where nothing else is said."""
MOST_ALPHA = 4.0
ROUGH_ALPHA = 0.75
"""The most with which engines choose windows by their cosines and correct those alone. Beyond it
more and more comes first that they would not choose, and they search exactly."""
NEIGHBOURS = 128
"""Highest cosines that an offset is the mean of, where nothing else is said; at most a tenth of the
bank."""
LEAST, MOST = 10, 100_000
"""Sentences of a bank."""


class BankInfo(NamedTuple):
    """What an index says of its bank.

    Attributes:
        sentences: B.
        neighbours: highest cosines that an offset is the mean of.
        digest: SHA-256 of the sentences in hexadecimal, the same for the same ones in any order.
    """

    sentences: int
    neighbours: int
    digest: str


@dataclass(frozen=True, eq=False)
class Bank:
    """Embedded sentences that are typical of what is asked.

    Attributes:
        info: how many there are, and which.
        embeddings: ``[B, d]`` float32, unit-norm.
    """

    info: BankInfo
    embeddings: NDArray[np.float32]

    def offsets(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """The offset of each of ``[N, d]`` windows, ``[N]``.

        Cosines and their mean are in float64 and rounded once, so that a window has the same offset
        alone, among others, and computed again.
        """
        if not len(vectors):
            return np.empty(0, np.float32)
        bank, items = torch.from_numpy(self.embeddings), torch.from_numpy(np.array(vectors))
        return nnn_offsets(bank, items, self.info.neighbours).numpy().astype(np.float32)


def bank_sentences(sentences: Sequence[str]) -> list[str]:
    """The sentences of a bank in its order, each once.

    Raises:
        InputError: where they are too few or too many.
    """
    found = sorted(set(sentences))
    if not LEAST <= len(found) <= MOST:
        raise InputError(
            f"The bank has {len(found):,} different sentences, expected {LEAST} to {MOST:,}: give "
            "captions of the data that the model was trained on, some hundreds or more, and of "
            "very many a random part (`shuf -n 20000`)."
        )
    return found


def bank_info(sentences: Sequence[str], neighbours: int = NEIGHBOURS) -> BankInfo:
    """What an index says of a bank of :func:`bank_sentences`; of ``neighbours``, 1 or more, at most
    a tenth of the bank count."""
    digest = hashlib.sha256("\n".join(sentences).encode("utf-8", "surrogatepass")).hexdigest()
    return BankInfo(len(sentences), bounded_k(neighbours, len(sentences)), digest)


def make_bank(
    sentences: Sequence[str],
    embed: Callable[[list[str]], NDArray[np.float32]],
) -> Bank:
    """Embed a bank.

    Args:
        sentences: of which each counts once, in any order.
        embed: makes ``[B, d]`` unit-norm embeddings of B sentences.

    Raises:
        InputError: where they are too few or too many.
    """
    chosen = bank_sentences(sentences)
    return Bank(bank_info(chosen), np.ascontiguousarray(embed(chosen), np.float32))


def check_alpha(alpha: float) -> float:
    """Refuse what cannot be taken off.

    Raises:
        InputError: where it is below 0, too large or no number; True is none, since it would be 1.
    """
    number = isinstance(alpha, Real) and not isinstance(alpha, bool)
    if not (number and math.isfinite(alpha) and 0 <= alpha <= MOST_ALPHA):
        shown = f"{alpha:g}" if number else repr(alpha)
        raise InputError(
            f"A correction of {shown} is none: give a number from 0 to {MOST_ALPHA:g}, such as "
            f"{ALPHA:g}, or the alpha that an evaluation has chosen on validation."
        )
    return alpha


def refuse_no_bank(where: object) -> NoReturn:
    """Say that an index cannot be asked for a correction.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{where} has no bank to correct with: run `index` again with --bank SENTENCES.txt, or "
        "leave the correction out."
    )
