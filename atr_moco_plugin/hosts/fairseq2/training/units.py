"""What fairseq2's trainer calls in every step and every validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, final

import torch
from fairseq2.device import Device
from fairseq2.metrics import Mean, MetricBag, Sum
from fairseq2.metrics.recorders import MetricRecorder
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.data.dataset import RetrievalSet
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.evaluation import relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.candidates import Cosines, find_pairs, match_pairs
from atr_moco_plugin.evaluation.encode import CaptionBatches, SharedEncoder, encode_captions
from atr_moco_plugin.evaluation.relevance import CaptionRelevance, Relevance, RelevanceMatrix
from atr_moco_plugin.evaluation.retrieval import retrieval_figures
from atr_moco_plugin.hosts.fairseq2.compat import EvalUnit, TrainUnit
from atr_moco_plugin.hosts.fairseq2.training.batches import ClipBatch, UnreadableBatch
from atr_moco_plugin.hosts.fairseq2.training.safety import warn
from atr_moco_plugin.optim.step_hook import attach
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard

FINITE = "finite_batches"
"""Batches since the last report that were finite; it is not reported itself."""


@final
class RetrievalTrainUnit(TrainUnit[PairBatch]):
    """One call of the criterion a batch; hooks and the watch for a collapse at each report.

    It attaches the criterion to the optimizer, so that the momentum copies have moved when a checkpoint
    of the step is saved.

    Args:
        criterion: the bare criterion module, as ``docs/plugins.md`` describes one.
        dp_model: the same, wrapped for data parallelism.
        hooks: name to hook; each is asked to log at every report.
        recorder: where the scalars of the hooks go.
        guard: on the optimizer that makes the steps; it is shown every loss.
        warn_after: ``after`` of :class:`~atr_moco_plugin.safety.collapse.CollapseWatch`.
    """

    def __init__(
        self,
        criterion: Any,
        dp_model: Module,
        hooks: Mapping[str, Any],
        recorder: MetricRecorder,
        guard: FiniteGuard,
        warn_after: int,
    ) -> None:
        self._criterion = criterion
        self._dp_model = dp_model
        self._hooks = hooks
        self._recorder = recorder
        self._guard = guard
        self._collapse = CollapseWatch(warn_after, warn)
        self._step_nr: int | None = None
        attach(criterion, guard.optimizers)

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        for name in self._criterion.measures:
            metric_bag.add(name, Mean())
        metric_bag.add(FINITE, Sum())

    @override
    def set_step_nr(self, step_nr: int) -> None:
        # An fp16 overflow repeats a step number; the optimizer has made no step then.
        self._guard.check_skipped_step()
        self._guard.step = self._step_nr = step_nr

    @override
    def process_batch(self, batch: PairBatch, metric_bag: MetricBag) -> tuple[Tensor, int | None]:
        # FSDP moves the tensors of a dict to the device, and the lengths belong to the host.
        audio = MappingProxyType(batch.audio)
        measures = self._dp_model(audio, batch.text, batch.clip_ids, batch.caption_ids)
        loss = measures["loss"]
        self._guard.watch(loss, batch.clip_ids)
        # A batch that is not finite stops the run or is left out, of the averages too.
        finite = loss.detach().isfinite()
        metric_bag.get(FINITE, Sum).update(finite.float())
        for name in self._criterion.measures:
            value = torch.where(finite, measures[name].detach(), 0.0)
            metric_bag.get(name, Mean).update(value, weight=finite * float(len(batch)))
        return loss, None

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        step = self._step_nr or 0
        if not values.pop(FINITE, True):
            # fairseq2's mean of nothing is 0.
            values.update(dict.fromkeys(self._criterion.measures, math.nan))
        measures = {
            name: float(torch.as_tensor(values[name]))
            for name in ("loss_atm", "temperature")
            if name in values
        }
        self._collapse.look(step, self._criterion.queues, measures)
        for name, hook in self._hooks.items():
            record = hook.log(step)
            if record is not None:
                self._recorder.record_metric_values(name, hook.scalars(record), step)


def relevances(retrieval_set: RetrievalSet, device: Device) -> tuple[Relevance, Relevance | None]:
    """What counts as a hit in the strict and in the duplicate-aware figures; the latter is None
    where a caption has several clips anyway."""
    owner = retrieval_set.caption_to_audio
    if owner is None:
        return RelevanceMatrix(retrieval_set.relevance.to(device)), None
    clips, ids = len(retrieval_set.clips), retrieval_set.caption_ids.to(device)
    strict = CaptionRelevance(owner.to(device), clips)
    return strict, CaptionRelevance(owner.to(device), clips, caption_ids=ids)


def reported(retrieval_set: RetrievalSet, *, reranks: bool) -> set[str]:
    """Names of the figures that a validation records, of which one may be the score.

    Args:
        retrieval_set: of the validation split.
        reranks: whether a validation re-ranks.
    """
    ids = torch.arange(2)
    if retrieval_set.caption_to_audio is None:
        figures = relevance_metrics(torch.eye(2), torch.eye(2).bool())
    else:
        figures = retrieval_metrics(torch.eye(2), ids, caption_ids=ids)
    again = {f"reranked_{name}" for name in figures} if reranks else set()
    return {*figures, *again, *(f"{name}_rankme" for name in ("audio", "text"))}


@final
class RetrievalEvalUnit(EvalUnit[ClipBatch | UnreadableBatch]):
    """Encodes the clips of a split and evaluates retrieval at the end.

    The processes share clips, captions and pairs; rank 0 makes the figures, which are those of one
    process.

    Attributes:
        retrieval_set: clips, captions and what counts as a hit.
        result: what the last evaluation found; empty on other ranks than 0.

    Args:
        criterion: the criterion, for its model and its temperature.
        retrieval_set: clips, captions and what counts as a hit.
        captions: tokenised captions.
        num_batches: batches of clips of all processes together.
        rerank_k: candidates of each query that are re-ranked; 0 for none.
        batch_size: pairs a forward pass of the matching head.
        device: where the model is.
        unreadable: clips of the split that were left out, to be told with the figures.
    """

    def __init__(
        self,
        criterion: Any,
        retrieval_set: RetrievalSet,
        captions: CaptionBatches,
        num_batches: int,
        *,
        rerank_k: int,
        batch_size: int,
        device: Device,
        unreadable: int = 0,
    ) -> None:
        self._criterion = criterion
        self.retrieval_set = retrieval_set
        self._captions = captions
        self._num_batches = num_batches
        self._rerank_k = rerank_k
        self._batch_size = batch_size
        self._device = device
        self._unreadable = unreadable
        self._audio: SharedEncoder | None = None
        self._cosines: Cosines | None = None
        self.result: dict[str, Any] = {}

    @property
    def similarity(self) -> Tensor:
        """``[A, C]`` float32 in main memory: the cosines of the last evaluation.

        Raises:
            RuntimeError: when there was none.
        """
        if self._cosines is None:
            raise RuntimeError("There is no similarity before the first evaluation.")
        return self._cosines.matrix()

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        self._audio = SharedEncoder(
            self._criterion.model.audio,
            self._num_batches,
            keep_tokens=self._rerank_k > 0,
            gather_states=False,
        )

    @override
    def process_batch(self, batch: ClipBatch | UnreadableBatch, metric_bag: MetricBag) -> None:
        if isinstance(batch, UnreadableBatch):
            self._audio.give_up(batch.reason)
        self._audio.take(batch.waveforms, batch.lengths)

    @override
    def finalize(self, metric_bag: MetricBag) -> None:
        model, audio = self._criterion.model, self._audio.encoded
        text = encode_captions(model, self._captions, self._device, keep_tokens=self._rerank_k > 0)
        self._audio = None
        self._cosines = cosines = Cosines(audio, text)
        candidates = None
        if self._rerank_k:
            pairs = find_pairs(cosines, text, self._rerank_k)
            candidates = match_pairs(model, audio, text, pairs, batch_size=self._batch_size)
        if process_index() != 0:
            return
        strict, duplicates = relevances(self.retrieval_set, text.distinct.device)
        self.result = retrieval_figures(
            cosines,
            strict,
            duplicates=duplicates,
            candidates=candidates,
            rerank_k=[self._rerank_k] if self._rerank_k else [],
            temperature=self._criterion.temperature.clamp(*TEMPERATURE_RANGE).item(),
        )
        embeddings = {"audio": audio.embeddings, "text": text.embeddings}
        self.result["rank"] = RankLogger(embeddings).log(step=0)
        if self._unreadable:
            self.result["unreadable"] = self._unreadable

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        values.update(self.result["dual"])
        for name, value in self.result.get("reranked", {}).items():
            values[f"reranked_{name}"] = value
        for name, source in self.result["rank"]["sources"].items():
            values[f"{name}_rankme"] = source["raw"]["rankme"]
