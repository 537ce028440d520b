"""Train, then evaluate the best checkpoint."""

from __future__ import annotations

import json
import logging
import traceback
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
from atr_moco_plugin.distributed import ProcessesDifferError, gather_values
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.tables import split_report
from atr_moco_plugin.evaluation.testsets import test_set_name
from atr_moco_plugin.hosts.fairseq2.compat import Task, TaskStopException, Trainer
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors, system_error
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_state
from atr_moco_plugin.hosts.fairseq2.runs.resume import newest
from atr_moco_plugin.hosts.fairseq2.training.batches import ClipReader
from atr_moco_plugin.hosts.fairseq2.training.skipped import name_skipped
from atr_moco_plugin.hosts.fairseq2.training.stop import StopRequest
from atr_moco_plugin.hosts.fairseq2.training.units import RetrievalEvalUnit
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.report import ReportError, collect_examples, write_report


def _is_bug(error: BaseException) -> bool:
    """Whether what loads its state fell over its own code, and not over another state than its own:
    PyTorch says the latter with a ValueError too."""
    if isinstance(error, InputError) or not isinstance(error, (TypeError, ValueError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or "torch" not in Path(frames[-1].filename).parts


@final
class TrainAndEvaluate(Task):
    """Run a trainer, load its best checkpoint and evaluate it on the named splits.

    The figures of a split go to ``retrieval.json`` in the output folder and as tables to standard
    output as soon as they are there, and with the curves of the run and retrievals of the
    validation split to ``report/index.html``. A split that cannot be evaluated is named beside the
    others, and the run ends with its reason. The best checkpoint is the one with the highest
    validation score; the test split takes no part in choosing it.

    Args:
        trainer: fairseq2's trainer, which leaves the process groups open.
        stop: what a request to stop goes to; the trainer asks it.
        criterion: the bare criterion module that the trainer trains.
        model: :func:`~.compat.parallel_facade` of what is trained.
        checkpoints: knows the validation scores of what the trainer saved.
        checkpoint_dir: where the trainer saves.
        units: split name to its evaluation unit and reader.
        dataset: what the splits are of; the report plays some of its clips.
        train_pairs: pairs in an epoch.
        output_dir: where ``retrieval.json`` and ``report/`` are written.
        config: the recipe's configuration.
        gangs: the processes; all of them evaluate, rank 0 writes.
        goes_on: called when the checkpoint that there was has been taken up.
    """

    def __init__(
        self,
        trainer: Trainer,
        stop: StopRequest,
        criterion: Module,
        model: Any,
        checkpoints: CheckpointManager,
        checkpoint_dir: Path,
        units: Mapping[str, tuple[RetrievalEvalUnit, ClipReader]],
        dataset: AudioTextDataset,
        train_pairs: int,
        output_dir: Path,
        config: RetrievalRecipeConfig,
        gangs: Gangs,
        goes_on: Callable[[], None],
    ) -> None:
        self._goes_on = goes_on
        self._trainer = trainer
        self._stop = stop
        self._criterion = criterion
        self._model = model
        self._checkpoints = checkpoints
        self._checkpoint_dir = checkpoint_dir
        self._units = units
        self._dataset = dataset
        self._train_pairs = train_pairs
        self._output_dir = output_dir
        self._config = config
        self._gangs = gangs
        # Read now: they are asked for after the process groups are closed too.
        self._rank, self._device = gangs.root.rank, gangs.root.device

    @override
    def run(self) -> None:
        # Whatever part a mistake shows in: data, criterion, hook or evaluation, of a plugin or not.
        with one_line_errors():
            self._run()

    def _run(self) -> None:
        try:
            self._trainer.run()
        except CheckpointError as ex:
            cause = ex.__cause__ or ex
            if _is_bug(cause):
                raise
            reason = " ".join(str(cause).split())
            raise RecipeError(
                f"The checkpoint of step {ex.step_nr} cannot be continued: {reason} A configuration "
                f"that was changed needs another folder than {self._output_dir}."
            ) from None
        except ProcessesDifferError as ex:
            raise RecipeError(str(ex)) from None
        except (CheckpointStateNotValidError, OperationalError, OSError) as ex:
            raise RecipeError(self._not_written(ex)) from None
        except TaskStopException:
            log.info("Stopped on request at step {}; the same command goes on from its checkpoint.",
                     self._trainer.step_nr)  # fmt: skip
            raise
        self._goes_on()
        if self._rank == 0:
            name_skipped(self._output_dir)
        failed = self._evaluate()
        self._gangs.close()
        if self._rank == 0 and self._config.report and self._file.exists():
            self._write_report()
        if failed is not None:
            raise failed

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

    @property
    def _file(self) -> Path:
        return self._output_dir / "retrieval.json"

    def _evaluate(self) -> Exception | None:
        """Evaluate the best checkpoint on every split, with all processes.

        Returns:
            What to end the run with, where a split failed.
        """
        # Read by one process: another might not see the last score yet.
        scores = self._checkpoints.load_scores() if self._rank == 0 else []
        best = gather_values(scores[:1], self._device)[0]
        if not best:
            log.warning("No checkpoint has a validation score, so none is evaluated; set "
                        "`regime.score_metric` and the validation interval.")  # fmt: skip
            return None
        ((score, step),) = best
        # Not through the manager: a file that cannot be read is one sentence here.
        shards = read_state(self._checkpoint_dir / f"step_{step}")
        self._model.load_state_dict(shards[self._gangs.sdp.rank])
        self._criterion.eval()
        log.info("Evaluating the checkpoint of step {}, validation score {:.2f}.", step, score)
        summary: dict[str, Any] = {
            "criterion": self._config.criterion_section.name,
            "dataset": self._dataset.name,
            "train_pairs": self._train_pairs,
            "seed": self._config.common.seed,
            "checkpoint": f"{self._checkpoint_dir.name}/step_{step}",
            "valid_score": score,
            "splits": {},
            # Each until it is done: the file tells the truth of a run that is killed in between.
            "failed": dict.fromkeys(self._units, "The run ended before it was evaluated."),
        }
        failed: Exception | None = None
        with self._model.summon_full_parameters():
            for split in self._units:
                error = self._evaluate_split(split, summary)
                if error is None:
                    continue
                failed = failed or error
                if not isinstance(error, (InputError, OSError)):
                    break  # a bug, which the other processes may not have met
        if self._rank == 0:
            say(f"\nFigures: {self._file}\nMetrics, checkpoints and logs: {self._output_dir}")
        if isinstance(failed, (InputError, OSError)):
            names = " and ".join(summary["failed"])
            return InputError(
                f"No figures on {names}: {failed} {self._file} has those of the other splits."
            )
        return failed

    def _evaluate_split(self, split: str, summary: dict[str, Any]) -> Exception | None:
        """Evaluate one split, and put its figures, or why there are none, into the summary and
        into the file."""
        unit, reader = self._units[split]
        try:
            self._run_unit(unit, reader)
        except Exception as ex:
            reason = " ".join(str(ex).split())
            if not isinstance(ex, (InputError, OSError)):
                reason = f"{type(ex).__name__}: {reason}"
            summary["failed"][split] = reason
            self._write(summary)
            return ex
        del summary["failed"][split]
        if self._rank == 0:
            name = test_set_name(self._dataset.name, split, unit.result["clips"])
            summary["splits"][split] = {"test_set": name, **unit.result}
            self._write(summary)
            say(f"\n{split_report(summary['splits'][split])}")
        return None

    @torch.inference_mode()
    def _run_unit(self, unit: RetrievalEvalUnit, reader: ClipReader) -> None:
        bag = MetricBag(device=self._device)
        unit.prepare_metric_bag(bag)
        for batches in reader:
            for batch in batches:
                batch.to(self._device)
                unit.process_batch(batch, bag)
        unit.finalize(bag)

    def _write(self, summary: Mapping[str, Any]) -> None:
        if self._rank != 0:
            return
        content = {key: value for key, value in summary.items() if key != "failed" or value}
        write_atomically(self._file, json.dumps(content, indent=2) + "\n")

    def _write_report(self) -> None:
        split = self._config.dataset.valid_split
        unit, _ = self._units[split]
        try:
            if unit.result:
                examples = collect_examples(
                    unit.similarity,
                    unit.retrieval_set,
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
            say(f"Report: {page}")

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
