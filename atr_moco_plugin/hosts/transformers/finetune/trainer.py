"""``Trainer`` with the batches and the evaluation of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.evaluation.split_evaluation import SplitEvaluation
from atr_moco_plugin.hosts.transformers.finetune.batches import StepBatches


class RetrievalTrainer(Trainer):
    """Trains with a loader of its own, and validates as the recipes do: on all clips of a split.

    Args:
        batches: the training batches.
        validation: of the split that the best checkpoint is chosen on.
        described: what a bundle has to know besides the model, such as ``window_seconds``.
        processors: tokenizer and feature extractor, by their folders in a bundle.
        options: of ``Trainer``.
    """

    def __init__(
        self,
        *,
        batches: StepBatches,
        validation: SplitEvaluation,
        described: Mapping[str, Any],
        processors: Mapping[str, Any],
        **options: Any,
    ) -> None:
        self.batches = batches
        self.validation = validation
        self.described = dict(described)
        self.processors = dict(processors)
        super().__init__(eval_dataset=_Clips(validation.split.retrieval_set.clips), **options)

    def get_train_dataloader(self) -> Any:
        """The batches of the run."""
        return self.batches

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate retrieval on the validation split.

        Returns:
            The figures, each with the prefix before its name.
        """
        model: Any = self.model
        model.eval()
        self.validation.evaluate()
        figures = self.validation.figures()
        metrics = {f"{metric_key_prefix}_{name}": float(x) for name, x in figures.items()}
        self.log(metrics)
        self._prefer_the_last(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether this is the best checkpoint so far. A validation between two checkpoints is none:
        its score would keep a worse checkpoint that was saved before."""
        if not self.control.should_save:
            return False
        parent: Any = super()
        return bool(parent._determine_best_metric(metrics, trial))

    def _prefer_the_last(self, metrics: Mapping[str, float]) -> None:
        """Take the last of equal checkpoints for the best, as the recipes do: small splits have
        many. ``Trainer`` takes the first."""
        best, name = self.state.best_metric, str(self.args.metric_for_best_model)
        value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
        if best is not None and value == best:
            worse = -math.inf if self.args.greater_is_better else math.inf
            self.state.best_metric = math.nextafter(best, worse)


class ValidateWhatIsSaved(TrainerCallback):
    """Has every checkpoint validated, the one of the last step too, as fairseq2 does: ``Trainer``
    would save it without a score, and never take it for the best."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate in a step that saves."""
        control.should_evaluate = control.should_evaluate or control.should_save


class _Clips:
    """The number of clips, which is all that is asked of an evaluation set."""

    def __init__(self, clips: Sized) -> None:
        self._number = len(clips)

    def __len__(self) -> int:
        return self._number
