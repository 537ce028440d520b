"""What fairseq2's trainer calls in every step and every validation."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, final

import torch
from fairseq2.device import Device
from fairseq2.logging import log
from fairseq2.metrics import Mean, MetricBag
from fairseq2.metrics.recorders import MetricRecorder
from fairseq2.recipe.error import RecipeError
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.criterion import PRIOR_ENTROPY, TEMPERATURE_RANGE
from atr_moco_plugin.data.batch import PairBatch
from atr_moco_plugin.data.dataset import Relevance
from atr_moco_plugin.evaluation.candidates import Cosines
from atr_moco_plugin.evaluation.encode import CaptionBatches, Encoded, encode_text
from atr_moco_plugin.evaluation.relation import CaptionRelation, MatrixRelation, Relation
from atr_moco_plugin.evaluation.retrieval import evaluate_retrieval
from atr_moco_plugin.hosts.fairseq2.compat import EvalUnit, TrainUnit
from atr_moco_plugin.hosts.fairseq2.dataset import ClipBatch
from atr_moco_plugin.rank import RankLogger

ATM_MARGIN = 0.01
"""A matching loss this close below the label prior has learned nothing yet."""


@final
class RetrievalTrainUnit(TrainUnit[PairBatch]):
    """One call of the criterion a batch; hooks and the watch on the matching head at each report.

    Args:
        criterion: the bare criterion module, as ``docs/plugins.md`` describes one.
        dp_model: the same, wrapped for data parallelism.
        hooks: name to hook; each is asked to log at every report.
        recorder: where the scalars of the hooks go.
        warn_after: steps after which a matching loss still at its prior is warned of.
    """

    def __init__(
        self,
        criterion: Any,
        dp_model: Module,
        hooks: Mapping[str, Any],
        recorder: MetricRecorder,
        warn_after: int,
    ) -> None:
        self._criterion = criterion
        self._dp_model = dp_model
        self._hooks = hooks
        self._recorder = recorder
        self._warn_after: int | None = warn_after
        self._step_nr: int | None = None

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        for name in self._criterion.measures:
            metric_bag.add(name, Mean())

    @override
    def set_step_nr(self, step_nr: int) -> None:
        # The one place between two optimizer steps that is outside of forward, which FSDP2 needs.
        # An fp16 overflow repeats a step number; the optimizer has made no step then.
        if step_nr > 1 and step_nr != self._step_nr:
            self._criterion.on_optimizer_step()
        self._step_nr = step_nr

    @override
    def process_batch(
        self, batch: PairBatch, metric_bag: MetricBag
    ) -> tuple[Tensor, int | None]:
        measures = self._dp_model(batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
        if not torch.isfinite(measures["loss"]):
            # Before the backward pass and before a checkpoint: what is saved is still sound.
            raise RecipeError(
                f"The loss of step {self._step_nr} is {measures['loss'].item()}; the run stops. "
                "Resume it from its last checkpoint with a lower learning rate or "
                "`trainer.max_grad_norm`, or look for a broken clip in the batch."
            )
        for name in self._criterion.measures:
            metric_bag.get(name, Mean).update(measures[name].detach(), weight=len(batch))
        return measures["loss"], None

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        step = self._step_nr or 0
        self._watch_matching(step, values)
        for name, hook in self._hooks.items():
            record = hook.log(step)
            if record is not None:
                self._recorder.record_metric_values(name, hook.scalars(record), step)

    def _watch_matching(self, step: int, values: Mapping[str, object]) -> None:
        if self._warn_after is None or step < self._warn_after or "loss_atm" not in values:
            return
        loss = float(torch.as_tensor(values["loss_atm"]))
        if loss > PRIOR_ENTROPY - ATM_MARGIN:
            log.warning(
                "The matching loss is {:.4f} after {} steps, still at {:.4f}, the entropy of its "
                "1:2 labels: the head tells matching pairs from hard negatives no better than by "
                "counting. Try a higher learning rate, more steps, or `criterion: moco_atc`.",
                loss, step, PRIOR_ENTROPY,
            )  # fmt: skip
        # Once is enough, whatever it said.
        self._warn_after = None


def relations(relevance: Relevance, device: Device) -> tuple[Relation, Relation | None]:
    """What counts as a hit in the strict and in the duplicate-aware figures; the latter is None
    where a caption has several clips anyway."""
    owner = relevance.caption_to_audio
    if owner is None:
        return MatrixRelation(relevance.matrix.to(device)), None
    clips, ids = len(relevance.clips), relevance.caption_ids.to(device)
    strict = CaptionRelation(owner.to(device), clips)
    return strict, CaptionRelation(owner.to(device), clips, caption_ids=ids)


@final
class RetrievalEvalUnit(EvalUnit[ClipBatch]):
    """Collects the clips of a split and evaluates retrieval at the end.

    Every process evaluates the whole split.

    Attributes:
        relevance: clips, captions and what counts as a hit.
        result: what the last evaluation found.

    Args:
        criterion: the criterion, for its model and its temperature.
        relevance: clips, captions and what counts as a hit.
        captions: tokenised captions, on the model's device.
        rerank_k: candidates of each query that are re-ranked; 0 for none.
        batch_size: pairs a forward pass of the matching head.
    """

    def __init__(
        self,
        criterion: Any,
        relevance: Relevance,
        captions: CaptionBatches,
        *,
        rerank_k: int,
        batch_size: int,
    ) -> None:
        self._criterion = criterion
        self.relevance = relevance
        self._captions = captions
        self._rerank_k = [rerank_k] if rerank_k else []
        self._batch_size = batch_size
        self._audio = Encoded()
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
        self._audio = Encoded()

    @override
    def process_batch(self, batch: ClipBatch, metric_bag: MetricBag) -> None:
        embeddings, tokens = self._criterion.model.audio(batch.waveforms, batch.lengths)
        self._audio.add(embeddings, tokens if self._rerank_k else None)

    @override
    def finalize(self, metric_bag: MetricBag) -> None:
        model = self._criterion.model
        text = encode_text(model, self._captions, keep_tokens=bool(self._rerank_k))
        strict, duplicates = relations(self.relevance, text.distinct.device)
        self.result = evaluate_retrieval(
            model,
            self._audio,
            text,
            strict,
            duplicates=duplicates,
            rerank_k=self._rerank_k,
            temperature=self._criterion.temperature.clamp(*TEMPERATURE_RANGE).item(),
            batch_size=self._batch_size,
        )
        self.result["rank"] = RankLogger(
            {"audio": self._audio.embeddings, "text": text.embeddings}
        ).log(step=0)
        self._cosines = Cosines(self._audio, text)
        self._audio = Encoded()

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        values.update(self.result["dual"])
        for name, value in self.result.get("reranked", {}).items():
            values[f"reranked_{name}"] = value
        for name, source in self.result["rank"]["sources"].items():
            values[f"{name}_rankme"] = source["raw"]["rankme"]
