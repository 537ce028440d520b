"""The unit that fairseq2's trainer calls to validate, and that evaluates the best checkpoint."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NoReturn, final

from fairseq2.datasets import DataReader
from fairseq2.metrics import MetricBag
from typing_extensions import Self, override

from atr_moco_plugin.evaluation.split_evaluation import SplitEvaluation
from atr_moco_plugin.hosts.fairseq2.compat import EvalUnit


@final
class RetrievalEvalUnit(SplitEvaluation, EvalUnit[Any]):
    """:class:`~atr_moco_plugin.evaluation.split_evaluation.SplitEvaluation` as fairseq2's trainer
    calls it. The trainer has it read no batches, see :class:`NoBatches`."""

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        pass

    @override
    def process_batch(self, batch: Any, metric_bag: MetricBag) -> None:
        pass

    @override
    def finalize(self, metric_bag: MetricBag) -> None:
        self.evaluate()

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        values.update(self.figures())


@final
class NoBatches(DataReader[Any]):
    """A reader without a batch, for a unit that reads its split by itself."""

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> NoReturn:
        raise StopIteration

    @override
    def reset(self) -> None:
        pass

    @override
    def state_dict(self) -> dict[str, object]:
        return {}

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass

    @property
    @override
    def num_accumulate(self) -> int:
        return 1
