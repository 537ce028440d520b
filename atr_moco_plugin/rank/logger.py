"""Rank analysis during training: one JSON line a log step, from queues or any tensor source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.jsonl import StepFile
from atr_moco_plugin.rank.measures import alignment, modality_gap, uniformity
from atr_moco_plugin.rank.moments import Moments, PairDistance, QueueMoments, QueueUniformity
from atr_moco_plugin.rank.report import RankReport, rank_report, report_of_spectrum
from atr_moco_plugin.rank.spectrum import NORMALIZERS

_DIGITS = 6


@runtime_checkable
class QueueLike(Protocol):
    """What the logger reads of :class:`~atr_moco_plugin.queue.EmbeddingQueue`.

    Where there is an integer ``size`` too, the record has it beside the fill ratio.
    """

    @property
    def valid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``[K, d]``, clip ids ``[K]``, caption ids ``[K]`` of the filled rows."""
        ...


Source = QueueLike | Tensor | Callable[[], Tensor]


class _View(NamedTuple):
    """The filled rows ``[K, d]`` of a source; what else there is of it."""

    embeddings: Tensor
    clip_ids: Tensor | None = None
    size: int | None = None
    moments: Moments | None = None


class _Followed(NamedTuple):
    """What follows one queue."""

    moments: QueueMoments
    uniformity: QueueUniformity


class RankLogger:
    """Measures the rank of named embedding sources and writes it to a file.

    Of a queue only the filled rows are used; a source with fewer than two rows is left out of the
    record. A record has for each source the raw and the centred measures with the normalised
    spectrum, beside the same measures for random unit vectors of the same shape, and for each
    pair the modality gap and, where row i of the one belongs to row i of the other (equal numbers
    of rows, and equal clip ids where both are queues), the alignment.

    A queue with more rows than dimensions is followed (see :mod:`atr_moco_plugin.rank.moments`):
    its singular values are those of a ``[d, d]`` matrix of sums, within 1e-6 of the largest raw one
    of those of its rows, and what centring leaves below 5e-7 of the largest raw one counts as 0.
    Rows that are changed without the queue's methods are seen after a refresh only: when the queue
    was written over 16 times, or its state was taken or loaded.

    Queues hold the same rows on every rank: in distributed training construct it on rank 0 alone.

    Args:
        sources: name -> a queue, an ``[N, d]`` tensor that is updated in place, or a function
            that returns one. One source is enough.
        path: JSON-lines file, usually ``rank.jsonl``; ``None`` writes nothing. A run that resumes
            at an earlier step than the file has drops the later lines first.
        every: steps that are not multiples of it are not logged.
        normalizer: see :func:`~atr_moco_plugin.rank.report.rank_report`.
        threshold: see :func:`~atr_moco_plugin.rank.report.rank_report`.
        pairs: names of sources that are two views of the same items; a pair with a source that
            is not there is left out.

    Raises:
        ValueError: when there is no source, ``every`` is not positive, the normaliser is unknown,
            or the file at ``path`` is not one this class wrote.

    Example:
        >>> logger = RankLogger({"audio": torch.eye(4, 8)})
        >>> record = logger.log(step=1)
        >>> flat = logger.scalars(record)
        >>> round(flat["audio_rankme"], 3), round(flat["audio_centered_rankme"], 3)
        (4.0, 3.0)
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = 1,
        normalizer: str = "max",
        threshold: float = 0.01,
        pairs: Sequence[tuple[str, str]] = (("audio", "text"),),
    ) -> None:
        if not sources:
            raise ValueError("RankLogger needs at least one source, such as {'audio': queue}.")
        if every < 1:
            raise InputError(f"RankLogger needs every >= 1, got {every}.")
        if normalizer not in NORMALIZERS:
            raise InputError(
                f"Unknown normalizer {normalizer!r}; expected one of {', '.join(NORMALIZERS)}."
            )
        self.sources = dict(sources)
        self.every = every
        self.normalizer = normalizer
        self.threshold = threshold
        self.pairs = tuple(pairs)
        self._file = None if path is None else StepFile(path)
        queues = {k: v for k, v in self.sources.items() if isinstance(v, EmbeddingQueue)}
        self._followed = {
            name: _Followed(QueueMoments(queue), QueueUniformity(queue))
            for name, queue in queues.items()
        }
        self._distances = {
            (a, b): PairDistance(queues[a], queues[b])
            for a, b in self.pairs
            if a in queues and b in queues and queues[a] is not queues[b]
        }

    @torch.no_grad()
    def log(self, step: int) -> dict[str, Any] | None:
        """Measure all sources and append the record to the file.

        Args:
            step: number of the training step.

        Returns:
            The record, or ``None`` when the step is not due or no source has two rows yet.

        Raises:
            ValueError: when a source has rows that are not finite, or is not ``[N, d]``.
        """
        if step % self.every:
            return None
        views = {name: _view(source) for name, source in self.sources.items()}
        views = {
            name: self._with_moments(name, view)
            for name, view in views.items()
            if len(view.embeddings) >= 2
        }
        if not views:
            return None
        record: dict[str, Any] = {
            "step": step,
            "normalizer": self.normalizer,
            "threshold": self.threshold,
            "sources": {name: self._source_record(name, view) for name, view in views.items()},
            "pairs": {
                f"{a}_{b}": self._pair_record((a, b), views[a], views[b])
                for a, b in self.pairs
                if a in views and b in views
            },
        }
        if self._file is not None:
            self._file.append(record)
        return record

    @staticmethod
    def scalars(record: Mapping[str, Any]) -> dict[str, float]:
        """A record of :class:`RankLogger` as flat names for TensorBoard or a metric recorder.

        Names are ``audio_rows``, ``audio_fill``, ``audio_uniformity``, ``audio_rankme``,
        ``audio_rankme_random``, ``audio_centered_rankme``, ``audio_centered_rankme_random`` (and so on
        for the other measures), ``audio_text_alignment``, ``audio_text_modality_gap``. What is not
        defined is left out.
        """
        flat: dict[str, float | None] = {}
        for name, source in record["sources"].items():
            for key in ("rows", "fill", "uniformity"):
                flat[f"{name}_{key}"] = source[key]
            for kind, prefix in (("raw", name), ("centered", f"{name}_centered")):
                for key, value in source[kind]["random"].items():
                    flat[f"{prefix}_{key}"] = source[kind][key]
                    flat[f"{prefix}_{key}_random"] = value
        for pair, measures in record["pairs"].items():
            flat.update({f"{pair}_{key}": value for key, value in measures.items()})
        return {name: float(value) for name, value in flat.items() if value is not None}

    def _source_record(self, name: str, view: _View) -> dict[str, Any]:
        try:
            raw, centered = self._reports(view)
        except ValueError as error:
            raise ValueError(f"Rank analysis of source {name!r}: {error}") from error
        return {
            "rows": raw.rows,
            "dim": raw.dim,
            "queue_size": view.size,
            "fill": None if view.size is None else raw.rows / view.size,
            "uniformity": (
                uniformity(view.embeddings)
                if view.moments is None
                else self._followed[name].uniformity.read()
            ),
            "raw": _report_record(raw),
            "centered": _report_record(centered),
        }

    def _with_moments(self, name: str, view: _View) -> _View:
        """With the sums of a queue that is followed, has more rows than dimensions and is finite."""
        if name not in self._followed or len(view.embeddings) <= view.embeddings.size(1):
            return view
        moments = self._followed[name].moments.read()
        if not bool(moments.gram.trace().isfinite()):
            # The report of the rows themselves says how many are not finite. That may be repaired.
            self._followed[name].moments.restart()
            return view
        return view._replace(moments=moments)

    def _reports(self, view: _View) -> tuple[RankReport, RankReport]:
        """Raw and centred."""

        def report(center: bool, values: Tensor | None) -> RankReport:
            options = {"center": center, "threshold": self.threshold}
            if values is None:
                return rank_report(view.embeddings, normalizer=self.normalizer, **options)
            rows, dim = view.embeddings.shape
            return report_of_spectrum(values, rows, dim, normalizer=self.normalizer, **options)

        raw, centered = (None, None) if view.moments is None else view.moments.spectra()
        return report(False, raw), report(True, centered)

    def _pair_record(self, names: tuple[str, str], a: _View, b: _View) -> dict[str, float | None]:
        aligned = a.embeddings.shape == b.embeddings.shape
        if aligned and a.clip_ids is not None and b.clip_ids is not None:
            aligned = torch.equal(a.clip_ids, b.clip_ids)
        comparable = a.embeddings.size(1) == b.embeddings.size(1)
        if a.moments is None or b.moments is None:
            return {
                "alignment": alignment(a.embeddings, b.embeddings) if aligned else None,
                "modality_gap": modality_gap(a.embeddings, b.embeddings) if comparable else None,
            }
        gap = a.moments.mean_direction() - b.moments.mean_direction() if comparable else None
        distance = self._distances.get(names)
        return {
            "alignment": (
                None
                if not aligned
                else alignment(a.embeddings, b.embeddings)
                if distance is None
                else distance.read()
            ),
            "modality_gap": None if gap is None else float(torch.linalg.vector_norm(gap)),
        }


def _view(source: Source) -> _View:
    if isinstance(source, Tensor):
        return _View(source)
    # A queue that is a module is callable too, so this comes before the call.
    if isinstance(source, QueueLike):
        embeddings, clip_ids, _ = source.valid
        return _View(embeddings, clip_ids, getattr(source, "size", None))
    return _View(source())


def _report_record(report: RankReport) -> dict[str, Any]:
    full = report.to_dict()
    return {
        **report.measures(),
        "random": full["random_baseline"],
        "spectrum": [round(value, _DIGITS) for value in full["normalized"]],
    }
