"""Rank analysis during training: one JSON line a log step, from queues or any tensor source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.drift import KeyDrift, Probe, drift_scalars
from atr_moco_plugin.rank.jsonl import StepFile
from atr_moco_plugin.rank.measures import alignment, modality_gap, uniformity
from atr_moco_plugin.rank.moments import Moments, PairDistance, QueueMoments, QueueUniformity
from atr_moco_plugin.rank.report import RankReport, check_matrix, report_of_spectrum
from atr_moco_plugin.rank.spectrum import NORMALIZERS, singular_values

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
    """The filled rows ``[K, d]`` of a source; of a queue also ids and size, whether rows of nobody
    were left out, and sums if kept."""

    embeddings: Tensor
    clip_ids: Tensor | None = None
    size: int | None = None
    whole: bool = True
    moments: Moments | None = None


class _Sums(NamedTuple):
    """The running sums of one queue."""

    moments: QueueMoments
    uniformity: QueueUniformity


class RankLogger:
    """Measures the rank of named embedding sources and writes it to a file.

    Only the filled rows of a queue are used, without those of the clip id -1, which are nobody's. A
    source with fewer than two rows is left out of the record. For each source, a record has the
    measures of the raw and of the centred matrix with the normalised spectrum, beside the same
    measures of random unit vectors of the same shape. For each pair it has the modality gap, and
    the alignment where row i of one source belongs to row i of the other: equal numbers of rows,
    and equal clip ids where both are queues.

    For a queue with more rows than dimensions the logger keeps running sums (see
    :mod:`atr_moco_plugin.rank.moments`) and takes the singular values from them. They differ from
    the singular values of the rows by at most 1e-6 of the largest raw one; centred values below
    5e-7 of the largest raw one count as 0. Rows that were changed by other means than the queue's
    methods are seen only after a refresh: when the queue was written over 16 times, or its state
    was saved or loaded.

    With a ``probe`` the record also has how far the keys of a fixed batch have moved, by age (see
    :class:`~atr_moco_plugin.rank.drift.KeyDrift`). The keys are kept in ``NAME_probe.npz`` beside
    the file, so that ages go on after a resume.

    Queues hold the same rows on every process: in distributed training construct the logger on
    process 0 alone.

    Args:
        sources: name -> a queue, an ``[N, d]`` tensor that is updated in place, or a function
            that returns such a tensor. One source is enough.
        path: JSON-lines file, usually ``rank.jsonl``; ``None`` writes nothing. A run that resumes
            at an earlier step than the last in the file drops the later lines first.
        every: steps that are no multiple of it are not logged.
        normalizer: see :func:`~atr_moco_plugin.rank.report.rank_report`.
        threshold: see :func:`~atr_moco_plugin.rank.report.rank_report`.
        pairs: names of sources that are two views of the same items; a pair without one of its
            sources is left out.
        probe: encodes the same items at each call, modality to ``[P, d]``, such as
            :class:`~atr_moco_plugin.criterion.probe.KeyProbe`; ``None`` measures no drift.
        probe_every: steps between two probes; 0 makes none. A loop that does not ask for a record
            at each of its steps calls :meth:`look`.

    Raises:
        InputError: when ``every`` is not positive, ``probe_every`` is negative, the normaliser is
            unknown, or ``path`` is not of this class, or of another normaliser or threshold.
        ValueError: when there is no source.

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
        probe: Probe | None = None,
        probe_every: int = 100,
    ) -> None:
        if not sources:
            raise ValueError("RankLogger needs at least one source, such as {'audio': queue}.")
        if every < 1:
            raise InputError(f"RankLogger needs every >= 1, got {every}.")
        if probe_every < 0:
            raise InputError(f"RankLogger needs probe_every >= 0, got {probe_every}.")
        if normalizer not in NORMALIZERS:
            raise InputError(
                f"Unknown normalizer {normalizer!r}; expected one of {', '.join(NORMALIZERS)}."
            )
        self.sources = dict(sources)
        self.every = every
        self.pairs = tuple(pairs)
        self._report: dict[str, Any] = {"normalizer": normalizer, "threshold": threshold}
        self._file = None if path is None else StepFile(path, self._report)
        keys = None if path is None else Path(path).with_name(f"{Path(path).stem}_probe.npz")
        self._drift = KeyDrift(probe, probe_every, keys) if probe and probe_every else None
        queues = {k: v for k, v in self.sources.items() if isinstance(v, EmbeddingQueue)}
        self._sums = {k: _Sums(QueueMoments(v), QueueUniformity(v)) for k, v in queues.items()}
        self._distances = {
            (a, b): PairDistance(queues[a], queues[b])
            for a, b in self.pairs
            if a in queues and b in queues and queues[a] is not queues[b]
        }

    def look(self, step: int) -> None:
        """Encode the probe where it is due, for the drift in the records to come.

        Args:
            step: optimizer steps made so far.
        """
        if self._drift is not None:
            self._drift.look(step)

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
        self.look(step)
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
            **self._report,
            "sources": {name: self._source_record(name, view) for name, view in views.items()},
            "pairs": {
                f"{a}_{b}": self._pair_record((a, b), views[a], views[b])
                for a, b in self.pairs
                if a in views and b in views
            },
        }
        if self._drift is not None and (drift := self._drift.record()) is not None:
            record["drift"] = drift
        if self._file is not None:
            self._file.append(record)
        return record

    @staticmethod
    def scalars(record: Mapping[str, Any]) -> dict[str, float]:
        """A record of :class:`RankLogger` as flat names for TensorBoard or a metric recorder.

        Names are ``audio_rows``, ``audio_fill``, ``audio_uniformity``, ``audio_rankme``,
        ``audio_rankme_random``, ``audio_centered_rankme``, ``audio_centered_rankme_random`` (and so
        on for the other measures), ``audio_text_alignment``, ``audio_text_modality_gap``, and of a
        probe ``audio_different`` and ``audio_same_1x``, ``audio_same_2x``, ... by age in probes. A
        measure that is not defined is left out.
        """
        flat = drift_scalars(record)
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
        rows, dim = view.embeddings.shape
        if view.moments is None:
            try:
                check_matrix(view.embeddings)
            except ValueError as error:
                raise ValueError(f"Rank analysis of source {name!r}: {error}") from error
            spectra = [singular_values(view.embeddings, center=center) for center in (False, True)]
            uniform = uniformity(view.embeddings)
        else:
            spectra = list(view.moments.spectra())
            uniform = self._sums[name].uniformity.read()
        raw, centered = (
            report_of_spectrum(values, rows, dim, center=center, **self._report)
            for values, center in zip(spectra, (False, True), strict=True)
        )
        return {
            "rows": rows,
            "dim": dim,
            "queue_size": view.size,
            "fill": None if view.size is None else rows / view.size,
            "uniformity": uniform,
            "raw": _report_record(raw),
            "centered": _report_record(centered),
        }

    def _with_moments(self, name: str, view: _View) -> _View:
        """Add the running sums of a queue with more rows than dimensions, if they are finite."""
        rows, dim = view.embeddings.shape
        if name not in self._sums or not view.whole or rows <= dim:
            return view
        moments = self._sums[name].moments.read()
        if not bool(moments.gram.trace().isfinite()):
            # The check of the rows says how many are not finite. They may be repaired later.
            self._sums[name].moments.restart()
            return view
        return view._replace(moments=moments)

    def _pair_record(self, names: tuple[str, str], a: _View, b: _View) -> dict[str, float | None]:
        record: dict[str, float | None] = {"alignment": None, "modality_gap": None}
        aligned = a.embeddings.shape == b.embeddings.shape
        if aligned and a.clip_ids is not None and b.clip_ids is not None:
            aligned = torch.equal(a.clip_ids, b.clip_ids)
        summed = a.moments is not None and b.moments is not None
        if aligned and summed and names in self._distances:
            record["alignment"] = self._distances[names].read()
        elif aligned:
            record["alignment"] = alignment(a.embeddings, b.embeddings)
        if a.embeddings.size(1) != b.embeddings.size(1):
            return record
        if a.moments is not None and b.moments is not None:
            gap = a.moments.mean_direction() - b.moments.mean_direction()
            record["modality_gap"] = float(torch.linalg.vector_norm(gap))
        else:
            record["modality_gap"] = modality_gap(a.embeddings, b.embeddings)
        return record


def _view(source: Source) -> _View:
    if isinstance(source, Tensor):
        return _View(source)
    # A queue that is a module is callable too, so this comes before the call.
    if isinstance(source, QueueLike):
        embeddings, clip_ids, _ = source.valid
        size, held = getattr(source, "size", None), clip_ids != -1
        if bool(held.all()):
            return _View(embeddings, clip_ids, size)
        # While a queue fills, rows of zeros stand for items that are not finite.
        return _View(embeddings[held], clip_ids[held], size, whole=False)
    return _View(source())


def _report_record(report: RankReport) -> dict[str, Any]:
    return {
        **report.measures(),
        "random": report.random_baseline.measures(),
        "spectrum": [round(value, _DIGITS) for value in report.normalized.tolist()],
    }
