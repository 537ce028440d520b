"""A trained model to use: any sound and any sentence to embeddings and scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from atr_moco_plugin.data.audio.stream import AudioWindow
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever.classification import (
    Classification,
    Reduce,
    classified,
    label_phrases,
)
from atr_moco_plugin.retriever.loaded_model import LoadedModel
from atr_moco_plugin.retriever.recordings import (
    Part,
    as_recordings,
    as_sentences,
    check_pairs,
    given_windows,
    in_parts,
    long_enough,
    recording_windows,
)
from atr_moco_plugin.retriever.runner import Progress

_PARTS = 4
"""Batches of windows that are sorted by length at once."""

if TYPE_CHECKING:
    from atr_moco_plugin.search.hits import Hit
    from atr_moco_plugin.search.store import Filter, Store


class AudioTextRetriever(LoadedModel):
    """Embeddings of sounds and sentences in one space, and scores of pairs.

    The same recording has the same embedding alone, in any batch and in any order (to 1e-5 in
    float32), and so has a sentence. A recording that is no longer than ``window_seconds`` is
    encoded whole, as an evaluation does; a longer one in windows. Load one with
    :meth:`from_pretrained`.
    """

    def windows(self, source: Any, sample_rate: int | None = None) -> Iterator[AudioWindow]:
        """Decode one recording in windows, one after the other, however long it is.

        For example 25 s in windows of 10 s with a hop of 10 s are 0 to 10, 10 to 20 and 15 to 25:
        the last window ends with the recording.

        Args:
            source: a path; a file that is open for reading bytes, or the content of one; a part of
                a file (:class:`~atr_moco_plugin.data.audio.source.FileSlice`,
                :class:`~atr_moco_plugin.data.audio.source.Segment`); an array or tensor
                ``[samples]``, or with up to 32 channels, of floats or integers; a pair of one and
                its rate; what ``datasets`` has in a column of audio.
            sample_rate: in Hz, of an array or tensor that comes without one.

        Raises:
            InputError: if it cannot be read, or an array comes without a rate.
        """
        return self._windows(source, "the recording", sample_rate)

    def embed_windows(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embed waveforms that are no longer than a window.

        Args:
            waveforms: N of ``[n]`` float32 at ``sample_rate``, such as those of
                :meth:`windows`.

        Returns:
            ``[N, d]`` float32, unit-norm.

        Raises:
            InputError: if a waveform is longer than a window, or an embedding is not finite.
        """
        return self._runner.windows(given_windows(waveforms, self._size), self.batch_size)

    def embed_audio(
        self, audio: Any, *, sample_rate: int | None = None, progress: bool = False
    ) -> Tensor:
        """Embed recordings; a long one is the normalised mean of its windows.

        Args:
            audio: one recording or a sequence of recordings, each as for :meth:`windows`.
            sample_rate: in Hz, of arrays and tensors that come without one.
            progress: show a bar on standard error.

        Returns:
            ``[N, d]`` float32 on the CPU, unit-norm, a row a recording.

        Raises:
            InputError: if a recording cannot be read, or its embedding is not finite.
        """
        recordings = as_recordings(audio)
        sums = torch.zeros(len(recordings), self.embed_dim, dtype=torch.float64)
        for part in self._parts(recordings, sample_rate, progress):
            embeddings = torch.from_numpy(self._runner.windows(part, self.batch_size))
            sums.index_add_(0, torch.tensor(part.rows), embeddings.double())
        return self.mean_embeddings(sums)

    def embed_text(self, texts: str | Sequence[str], *, progress: Progress | None = None) -> Tensor:
        """Embed sentences.

        Args:
            texts: one or several. One that is too long for the model is cut, with a warning.
            progress: told how many more are done; what it raises ends the work.

        Returns:
            ``[N, d]`` float32 on the CPU, unit-norm, a row a sentence.

        Raises:
            InputError: if a sentence has no word.
        """
        return self._runner.sentences(as_sentences(texts), self.batch_size, progress)

    def match(
        self, texts: str | Sequence[str], audio: Any, *, sample_rate: int | None = None
    ) -> Tensor:
        """Ask the matching head whether each sentence describes its recording.

        Args:
            texts: P sentences, or one for all recordings.
            audio: P recordings, as for :meth:`embed_audio`.
            sample_rate: in Hz, of arrays and tensors that come without one.

        Returns:
            ``[P]`` float32 log-odds, row by row, on the CPU; above 0 the head says yes. A long
            recording has the highest of its windows.

        Raises:
            InputError: without a matching head, or if there are not as many sentences as
                recordings.
        """
        self._check_head()
        recordings = as_recordings(audio)
        sentences = as_sentences(texts)
        if isinstance(texts, str):
            sentences *= len(recordings)
        check_pairs(sentences, recordings)
        tokens = self._runner.tokens(sentences)
        found = torch.full((len(recordings),), -torch.inf)
        for part in self._parts(recordings, sample_rate):
            log_odds = self._runner.log_odds(tokens, part, self.batch_size)
            found.scatter_reduce_(0, torch.tensor(part.rows), log_odds, "amax")
        return found

    def match_windows(
        self, texts: Sequence[str], waveforms: Sequence[NDArray[np.float32]]
    ) -> Tensor:
        """Ask the matching head about pairs of a sentence and a waveform.

        Args:
            texts: P sentences.
            waveforms: P waveforms, as for :meth:`embed_windows`.

        Returns:
            ``[P]`` float32 log-odds on the CPU.

        Raises:
            InputError: as :meth:`match`.
        """
        self._check_head()
        sentences = as_sentences(texts)
        check_pairs(sentences, waveforms)
        part = given_windows(waveforms, self._size)
        return self._runner.log_odds(self._runner.tokens(sentences), part, self.batch_size)

    def search(
        self,
        query: str | Sequence[str] | Tensor,
        index: Store | str | os.PathLike[str],
        k: int = 10,
        *,
        unwanted: Sequence[str] = (),
        only: Filter | None = None,
        rerank: bool = False,
        correct: float = 0.0,
    ) -> list[Hit]:
        """Find the stretches of recordings in an index that fit best.

        Args:
            query: a sentence, several that must all fit, or ``[Q, d]`` unit-norm embeddings, such
                as those of :meth:`embed_audio` for sounds like another.
            index: what :func:`~atr_moco_plugin.search.engines.open_index` opens, or has opened.
            k: how many hits at most.
            unwanted: sentences that must not fit.
            only: which recordings are looked at.
            rerank: order the best hits by the matching head, which takes one sentence.
            correct: alpha of a corrected search, such as 0.75, see
                :mod:`atr_moco_plugin.search.bank`; for sentences and their embeddings alone.

        Returns:
            Hits, best first, see :func:`~atr_moco_plugin.search.query.find`.

        Raises:
            InputError: if there is no such index or bank, or another model's, or a query cannot be.
        """
        # Built on a retriever: imported when one is asked.
        from atr_moco_plugin.search import rerank as reranking
        from atr_moco_plugin.search.build import index_info
        from atr_moco_plugin.search.checks import refuse_other
        from atr_moco_plugin.search.engines import open_index
        from atr_moco_plugin.search.query import find

        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise InputError(f"`k` is {k!r}, expected 1 or more, a whole number")
        sentences = [] if isinstance(query, Tensor) else as_sentences(query)
        wanted = query if isinstance(query, Tensor) else self.embed_text(sentences)
        if not len(wanted):
            raise InputError("there is nothing to search for: give a sentence")
        if wanted.shape[1:] != (self.embed_dim,):
            raise InputError(
                f"the query has the shape {list(wanted.shape)}, expected [queries, "
                f"{self.embed_dim}] of this model"
            )
        if rerank:
            self._check_head()
            if len(sentences) != 1 or unwanted:
                raise InputError("re-ranking reads one sentence: give one, or leave it out")
        info = index_info(self)
        if isinstance(index, (str, os.PathLike)):
            opened: AbstractContextManager[Store] = open_index(index, info=info)
        elif index.info.fingerprint == self.fingerprint:
            opened = nullcontext(index)
        else:
            refuse_other("The index", index.info, info)
        with opened as store:
            most = max(k, reranking.RERANKED) if rerank else k
            rest = self.embed_text(unwanted).numpy()
            asked = self.query_embeddings(wanted.detach().float().cpu()).numpy()
            hits = find(store, asked, rest, most, only, alpha=correct)
        if rerank:
            hits = reranking.rerank(hits, self, sentences[0])
        return hits[:k]

    def classify(
        self,
        audio: Any,
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        templates: Sequence[str] = ("{}",),
        *,
        reduce: Reduce = "max",
        sample_rate: int | None = None,
        progress: bool = False,
    ) -> Classification:
        """Say which of some labels fits each recording, without training for them.

        For example ``classify("street.wav", ["siren", "rain"], ["the sound of {}"])``.

        Args:
            audio: as for :meth:`embed_audio`.
            labels: names, or names to several phrases about each.
            templates: sentences with ``{}`` where a name or phrase goes.
            reduce: with several sentences a label, ``max`` takes the best one of each, ``mean``
                their mean embedding.
            sample_rate: in Hz, of arrays and tensors that come without one.
            progress: show a bar on standard error.

        Returns:
            Probabilities and cosines of each label.

        Raises:
            InputError: for labels or templates that cannot be used, or audio that cannot be read.
        """
        sentences = label_phrases(labels, templates)
        text = self.embed_text([x for own in sentences.values() for x in own])
        sounds = self.embed_audio(audio, sample_rate=sample_rate, progress=progress)
        return classified(self, sounds, sentences, text, reduce)

    def _parts(
        self, recordings: Sequence[Any], sample_rate: int | None, progress: bool = False
    ) -> Iterator[Part]:
        bar = tqdm(recordings, disable=not progress, unit="recording")
        return in_parts(
            bar, partial(self._windows, sample_rate=sample_rate), _PARTS * self.batch_size
        )

    def _windows(self, source: Any, name: str, sample_rate: int | None) -> Iterator[AudioWindow]:
        rate = self.sample_rate
        windows = recording_windows(source, rate, self._size, self._hop, sample_rate, name)
        return long_enough(windows, self._least, rate, source, name)

    def _check_head(self) -> None:
        if not self.can_match:
            raise InputError(
                f"{self.name} has no trained matching head: use the cosines of embeddings, or a "
                "model that was trained with a criterion that matches, such as moco_atc_atm"
            )
