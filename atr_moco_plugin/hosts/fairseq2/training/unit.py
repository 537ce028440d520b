"""The unit that fairseq2's trainer calls in every training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, final

import torch
from fairseq2.metrics import Mean, MetricBag, Sum
from fairseq2.metrics.recorders import MetricRecorder
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.hosts.fairseq2.compat import TrainUnit
from atr_moco_plugin.hosts.fairseq2.training.safety import warn
from atr_moco_plugin.optim.step_hook import attach
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard

FINITE = "finite_batches"
"""Number of finite batches since the last report; it is not reported itself."""

MEASURED = "measured_"
"""Before a measure's name: the number of finite batches in which it was not NaN, likewise. A
measure that no batch has, such as a loss that has not begun, is left out of the report."""


class _Mean(Mean):
    """fairseq2's mean, whose base warns of nothing measured, and of a mean of 0 as if it were."""

    weighted_sum: Tensor
    weights: Tensor

    @override
    def compute(self) -> Tensor:
        # Of nothing it is 0, and left out of the report.
        return self.weighted_sum / self.weights if self.weights else self.weights


@final
class RetrievalTrainUnit(TrainUnit[Any]):
    """One call of the criterion a batch; hooks and the watch for a collapse at each report.

    It attaches the criterion to the optimizer, so that the momentum copies have moved when a
    checkpoint of the step is saved.

    Args:
        criterion: the bare criterion module, as ``docs/plugins.md`` describes one.
        dp_model: the same, wrapped for data parallelism.
        hooks: name to hook; each is asked to log at every report, and to ``look`` before every
            step where it can.
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
        self._collapse = CollapseWatch(warn_after, warn, criterion)
        self._step_nr: int | None = None
        attach(criterion, guard.optimizers)

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        for name in self._criterion.measures:
            metric_bag.add(name, _Mean())
            metric_bag.add(MEASURED + name, Sum())
        metric_bag.add(FINITE, Sum())

    @override
    def set_step_nr(self, step_nr: int) -> None:
        # An fp16 overflow repeats a step number; the optimizer has made no step then.
        self._guard.check_skipped_step()
        self._guard.step = self._step_nr = step_nr
        for hook in self._hooks.values():
            if hasattr(hook, "look"):
                hook.look(step_nr - 1)  # the steps made so far

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
            value = measures[name].detach()
            measured = finite & ~value.isnan()
            metric_bag.get(MEASURED + name, Sum).update(measured.float())
            value = torch.where(measured, value, 0.0)
            metric_bag.get(name, Mean).update(value, weight=measured * float(len(batch)))
        return loss, None

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        step = self._step_nr or 0
        finite = values.pop(FINITE, True)
        for name in self._criterion.measures:
            if values.pop(MEASURED + name, True):
                continue
            # fairseq2's mean of nothing is 0.
            del values[name]
            if not finite:
                values[name] = math.nan
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
