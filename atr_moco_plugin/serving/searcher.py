"""An index and its model, as the page asks them: by words, by a sound, and for a window."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.bank import BankInfo, check_alpha
from atr_moco_plugin.search.hits import Hit
from atr_moco_plugin.search.query import find
from atr_moco_plugin.search.rerank import RERANKED, rerank
from atr_moco_plugin.search.store import (
    Counts,
    Filter,
    IndexInfo,
    ReplacedIndexError,
    Store,
    WindowHit,
)

MAX_CHARACTERS = 2_000
"""Longest sentence. A model reads some dozens of tokens of it."""

MAX_HITS = 50
"""Most hits of one search."""


class SearchResult(NamedTuple):
    """What a search has found.

    Attributes:
        hits: best first.
        note: what the user should know of it, such as that a sentence was cut; else empty.
    """

    hits: list[Hit]
    note: str


class Searcher:
    """Answers of an index, in any thread.

    The index is open all the time, and what another process adds is found at once. Where reading it
    fails, as after a restart of its database, the next answer opens it again; so it does where the
    index was made anew with another model, and is refused then.

    Args:
        open_store: opens the index for reading.
        retriever: the model that made it.

    Raises:
        InputError: if the index is one of another model.
    """

    def __init__(self, open_store: Callable[[], Store], retriever: AudioTextRetriever) -> None:
        self.retriever = retriever
        self._open_store = open_store
        self._store: Store | None = None
        # The index answers while the model is busy, as with a re-ranking.
        self._index_turn, self._model_turn = threading.Lock(), threading.Lock()
        self.state()

    def close(self) -> None:
        """Close the index."""
        with self._index_turn:
            self._forget()

    def state(self) -> tuple[IndexInfo, Counts]:
        """What the index says of itself, and how much is in it."""
        with self._index() as store:
            return store.info, store.counts()

    def bank(self) -> BankInfo | None:
        """The bank that searches by words may be corrected with; None where there is none."""
        with self._index() as store:
            return store.bank()

    def by_words(
        self,
        wanted: Sequence[str],
        unwanted: Sequence[str] = (),
        k: int = 10,
        only: Filter | None = None,
        reranked: bool = False,
        alpha: float = 0.0,
    ) -> SearchResult:
        """The hits for sentences; see :func:`~atr_moco_plugin.search.query.find`.

        Args:
            wanted: what a recording must fit, each of them.
            unwanted: what it must not.
            k: most hits.
            only: which recordings are looked at.
            reranked: whether the matching head orders the best
                :data:`~atr_moco_plugin.search.rerank.RERANKED` of them; for one sentence alone.
            alpha: how much of the offset of a sound is taken off its score, see
                :mod:`~atr_moco_plugin.search.bank`.

        Raises:
            InputError: if there is no sentence or one that is too long, k or alpha is out of range,
                a re-ranking is asked of a model without a matching head or for more than one
                sentence, or a correction of an index without a bank.
        """
        if not wanted:
            raise InputError("Type a sentence: what you want to hear.")
        for sentence in (*wanted, *unwanted):
            _check_sentence(sentence)
        _check_k(k)
        check_alpha(alpha)
        if reranked and not self.retriever.can_match:
            raise InputError("This model has no matching head, so it cannot re-rank.")
        if reranked and (len(wanted) != 1 or unwanted):
            raise InputError("A re-ranking compares one sentence with sounds: ask for one.")
        with self._model_turn, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            queries = self.retriever.embed_text([*wanted, *unwanted]).numpy()
        notes = [str(x.message) for x in caught if x.category is UserWarning]
        first, rest = queries[: len(wanted)], queries[len(wanted) :]
        with self._index() as store:
            most = max(k, RERANKED) if reranked else k
            hits = find(store, first, rest, most, only, alpha=alpha)
        if reranked:
            with self._model_turn:
                hits = rerank(hits, self.retriever, wanted[0])[:k]
        return SearchResult(hits, "; ".join(notes))

    def by_sound(
        self, waveform: NDArray[np.float32], rate: int, k: int = 10, only: Filter | None = None
    ) -> SearchResult:
        """The hits for a sound, ``[n]`` float32 at ``rate`` Hz.

        Raises:
            InputError: if it is too short for the model, or k is out of range.
        """
        _check_k(k)
        with self._model_turn:
            sound = self.retriever.embed_audio([waveform], sample_rate=rate)
            queries = self.retriever.query_embeddings(sound).numpy()
        with self._index() as store:
            return SearchResult(find(store, queries, k=k, only=only), "")

    def window(self, number: int, of: str = "") -> WindowHit:
        """A window by its number.

        Args:
            number: of the window.
            of: how the digest of its recording must begin. Numbers may go to other windows when
                an index is made smaller.

        Raises:
            InputError: if there is no such window, or it is of another recording by now.
        """
        if not 0 <= number < 2**63:
            raise InputError("There is no such window.")
        with self._index() as store:
            hit = store.windows([number])[0]
        if not hit.recording.digest.startswith(of):
            raise InputError("The index has changed since this search; search again.")
        return hit

    @contextmanager
    def _index(self) -> Iterator[Store]:
        with self._index_turn:
            if self._store is None:
                self._store = self._opened()
            try:
                yield self._store
            except Exception as ex:
                if not isinstance(ex, InputError) or isinstance(ex, ReplacedIndexError):
                    self._forget()
                raise

    def _opened(self) -> Store:
        store = self._open_store()
        if store.info.fingerprint != self.retriever.fingerprint:
            store.__exit__(None, None, None)
            raise InputError(
                f"The index was made with another model, {store.info.model}: give that one with "
                f"--model, or make an index with {self.retriever.name}."
            )
        return store

    def _forget(self) -> None:
        if self._store is not None:
            self._store.__exit__(None, None, None)
            self._store = None


def _check_sentence(sentence: str) -> None:
    if not sentence.strip():
        raise InputError("Type a sentence: what you want to hear.")
    if len(sentence) > MAX_CHARACTERS:
        raise InputError(
            f"The sentence has {len(sentence):,} characters; at most {MAX_CHARACTERS:,} are taken."
        )


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_HITS:
        raise InputError(f"k is {k}, expected 1 to {MAX_HITS}.")
