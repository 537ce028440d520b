"""Train, then evaluate the best checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from fairseq2.checkpoint import CheckpointError, CheckpointManager
from fairseq2.checkpoint.manager import CheckpointStateNotValidError
from fairseq2.error import OperationalError
from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.metrics import MetricBag
from fairseq2.recipe.error import RecipeError
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.distributed import RanksDifferError
from atr_moco_plugin.evaluation.tables import split_report
from atr_moco_plugin.evaluation.testsets import test_set_name
from atr_moco_plugin.hosts.fairseq2.compat import Task, TaskStopException, Trainer
from atr_moco_plugin.hosts.fairseq2.config import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.dataset import ClipReader
from atr_moco_plugin.hosts.fairseq2.errors import system_error
from atr_moco_plugin.hosts.fairseq2.resume import newest
from atr_moco_plugin.hosts.fairseq2.runs import read_state
from atr_moco_plugin.hosts.fairseq2.skipped import name_skipped
from atr_moco_plugin.hosts.fairseq2.stop import StopRequest
from atr_moco_plugin.hosts.fairseq2.units import RetrievalEvalUnit
from atr_moco_plugin.report import ReportError, collect_examples, write_report


@final
class TrainAndEvaluate(Task):
    """Run a trainer, load its best checkpoint and evaluate it on the named splits.

    The figures go to ``retrieval.json`` in the output folder and as tables to standard output, and
    with the curves of the run and retrievals of the validation split to ``report/index.html``.
    The best checkpoint is the one with the highest validation score; the test split takes no part
    in choosing it.

    Args:
        trainer: fairseq2's trainer.
        stop: what a request to stop goes to; the trainer asks it.
        criterion: the bare criterion module that the trainer trains.
        checkpoints: knows the validation scores of what the trainer saved.
        checkpoint_dir: where the trainer saves.
        units: split name to a function that makes its evaluation unit and reader.
        dataset: what the splits are of; the report plays some of its clips.
        train_pairs: pairs in an epoch.
        output_dir: where ``retrieval.json`` and ``report/`` are written.
        config: the recipe's configuration.
        gangs: the processes; rank 0 evaluates.
    """

    def __init__(
        self,
        trainer: Trainer,
        stop: StopRequest,
        criterion: Module,
        checkpoints: CheckpointManager,
        checkpoint_dir: Path,
        units: Mapping[str, Callable[[], tuple[RetrievalEvalUnit, ClipReader]]],
        dataset: AudioTextDataset,
        train_pairs: int,
        output_dir: Path,
        config: RetrievalRecipeConfig,
        gangs: Gangs,
    ) -> None:
        self._trainer = trainer
        self._stop = stop
        self._criterion = criterion
        self._checkpoints = checkpoints
        self._checkpoint_dir = checkpoint_dir
        self._units = units
        self._dataset = dataset
        self._train_pairs = train_pairs
        self._output_dir = output_dir
        self._config = config
        # Read now: the trainer closes the process groups when it is done.
        self._rank, self._world_size = gangs.root.rank, gangs.root.size
        self._device = gangs.root.device

    @override
    def run(self) -> None:
        try:
            self._trainer.run()
        except CheckpointError as ex:
            reason = " ".join(str(ex.__cause__ or ex).split())
            raise RecipeError(
                f"The checkpoint of step {ex.step_nr} cannot be continued: {reason} A configuration "
                f"that was changed needs another folder than {self._output_dir}."
            ) from None
        except RanksDifferError as ex:
            raise RecipeError(str(ex)) from None
        except (CheckpointStateNotValidError, OperationalError, OSError) as ex:
            raise RecipeError(self._not_written(ex)) from None
        except TaskStopException:
            log.info("Stopped on request at step {}; the same command goes on from its checkpoint.",
                     self._trainer.step_nr)  # fmt: skip
            raise
        if self._rank != 0:
            return
        name_skipped(self._output_dir)
        if self._world_size > 1 and self._config.trainer.data_parallelism == "fsdp":
            log.warning("The final evaluation is left out: this process holds one shard of the "
                        "model. Evaluate the best checkpoint in a run of its own, with `python -m "
                        "atr_moco_plugin.recipes.evaluate OUT --config run={}`.",
                        self._output_dir)  # fmt: skip
            return
        self._evaluate()

    def _not_written(self, error: Exception) -> str:
        """One sentence for a file that could not be written, where `error` is that.

        Raises:
            Exception: `error` itself, where it is another.
        """
        failed = system_error(error)
        if failed is None:
            raise error
        # The log may be on the disk that is full; its complaints would hide this one.
        logging.raiseExceptions = False
        file = failed.filename or self._output_dir
        last = newest(self._checkpoint_dir)
        return (
            f"{file}: {failed.strerror}; the run stops at step {self._trainer.step_nr}. "
            f"{f'{last} is whole, and' if last else 'Nothing was saved, and'} the same command goes "
            "on from it once there is space or access."
        )

    def _evaluate(self) -> None:
        scores = self._checkpoints.load_scores()
        if not scores:
            log.warning("No checkpoint has a validation score, so none is evaluated; set "
                        "`regime.score_metric` and the validation interval.")  # fmt: skip
            return
        score, step = scores[0]
        # Not through the manager, which needs the process groups.
        (state,) = read_state(self._checkpoint_dir / f"step_{step}")
        self._criterion.load_state_dict(state)
        self._criterion.eval()
        log.info("Evaluating the checkpoint of step {}, validation score {:.2f}.", step, score)

        units = {split: self._evaluate_split(split) for split in self._units}
        results = {split: self._named(split, unit.result) for split, unit in units.items()}
        summary = {
            "criterion": self._config.criterion_section.name,
            "dataset": self._dataset.name,
            "train_pairs": self._train_pairs,
            "seed": self._config.common.seed,
            "checkpoint": f"{self._checkpoint_dir.name}/step_{step}",
            "valid_score": score,
            "splits": results,
        }
        file = self._output_dir / "retrieval.json"
        file.write_text(json.dumps(summary, indent=2) + "\n")
        self._print(results, file)
        if self._config.report:
            self._write_report(units)

    def _named(self, split: str, result: dict[str, Any]) -> dict[str, Any]:
        name = test_set_name(self._dataset.name, split, result["clips"])
        return {"test_set": name, **result}

    @torch.inference_mode()
    def _evaluate_split(self, split: str) -> RetrievalEvalUnit:
        unit, reader = self._units[split]()
        bag = MetricBag(device=self._device)
        unit.prepare_metric_bag(bag)
        for batches in reader:
            for batch in batches:
                batch.to(self._device)
                unit.process_batch(batch, bag)
        unit.finalize(bag)
        return unit

    def _write_report(self, units: Mapping[str, RetrievalEvalUnit]) -> None:
        split = self._config.dataset.valid_split
        unit = units[split]
        try:
            examples = collect_examples(
                unit.similarity,
                unit.relevance,
                self._dataset.load,
                self._dataset.sample_rate,
                split=split,
            )
            examples.save(self._output_dir)
            page = write_report(self._output_dir)
        except (ReportError, OSError) as ex:
            # The run itself is done and its figures are written.
            log.warning("There is no report: {}", ex)
        else:
            print(f"Report: {page}")

    def _print(self, results: Mapping[str, dict[str, Any]], file: Path) -> None:
        for result in results.values():
            print(f"\n{split_report(result)}")
        print(f"\nFigures: {file}\nMetrics, checkpoints and logs: {self._output_dir}")

    @override
    def request_stop(self) -> None:
        self._stop.ask()

    @override
    def close(self) -> None:
        self._trainer.close()

    @property
    @override
    def step_nr(self) -> int:
        return self._trainer.step_nr
