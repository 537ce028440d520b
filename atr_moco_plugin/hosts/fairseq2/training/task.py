"""Train, then evaluate the best checkpoint."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from fairseq2.checkpoint import CheckpointError, CheckpointManager
from fairseq2.checkpoint.manager import CheckpointStateNotValidError
from fairseq2.error import OperationalError
from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.recipe.error import RecipeError
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.skipped import all_skipped
from atr_moco_plugin.distributed import ProcessesDifferError
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.final import RESULTS_FILE, evaluate_splits
from atr_moco_plugin.hosts.fairseq2.compat import Task, TaskStopException, Trainer
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors, system_error
from atr_moco_plugin.hosts.fairseq2.evaluation.unit import RetrievalEvalUnit
from atr_moco_plugin.hosts.fairseq2.processes import StopRequest, from_first
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_state
from atr_moco_plugin.hosts.fairseq2.training.safety import warn
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.report.ending import show_results


@final
@dataclass
class TrainAndEvaluate(Task):
    """Run a trainer, load its best checkpoint and evaluate it on the named splits.

    The figures of a split go to ``retrieval.json`` in the output folder as soon as they are there,
    and what each query got to ``queries.safetensors``.
    At the end the last split's are printed as a table, and those of all splits go with the curves
    of the run and retrievals of the validation split to ``report/index.html``. A split that cannot
    be evaluated is named beside the others, and the run ends with its reason. The best checkpoint
    is the one with the highest validation score; the test split takes no part in choosing it.

    Attributes:
        trainer: fairseq2's trainer, which leaves the process groups open.
        on_trained: called when the training is done, or a whole run was loaded.
        stop: what a request to stop goes to; the trainer asks it.
        criterion: the bare criterion module that the trainer trains.
        model: :func:`~atr_moco_plugin.hosts.fairseq2.compat.parallel_facade` of what is trained.
        checkpoints: knows the validation scores of what the trainer saved.
        checkpoint_dir: where the trainer saves.
        units: split name to its evaluation unit.
        dataset: has the splits; the report plays some of its clips.
        train_pairs: pairs in an epoch.
        output_dir: where ``retrieval.json`` and ``report/`` are written.
        config: the recipe's configuration.
        gangs: the processes; all of them evaluate, the first one writes.
    """

    trainer: Trainer
    on_trained: Callable[[], None]
    stop: StopRequest
    criterion: Module
    model: Any
    checkpoints: CheckpointManager
    checkpoint_dir: Path
    units: Mapping[str, RetrievalEvalUnit]
    dataset: AudioTextDataset
    train_pairs: int
    output_dir: Path
    config: RetrievalRecipeConfig
    gangs: Gangs

    def __post_init__(self) -> None:
        # Read now: it is asked for after the process groups are closed too.
        self._first = self.gangs.root.rank == 0
        self._file = self.output_dir / RESULTS_FILE

    @override
    def run(self) -> None:
        # Whatever part a mistake shows in: data, criterion, hook or evaluation, of a plugin or not.
        with one_line_errors():
            self._train()
            self.on_trained()
            if self._first and (skipped := all_skipped(self.output_dir)) is not None:
                warn(skipped)
            failed = self._evaluate()
            self.gangs.close()
            if self._first and self._file.exists():
                self._show()
            if failed is not None:
                raise failed

    def _train(self) -> None:
        try:
            self.trainer.run()
        except CheckpointError as ex:
            cause = ex.__cause__ or ex
            if _is_bug(cause):
                raise
            reason = " ".join(str(cause).split())
            raise RecipeError(
                f"The checkpoint of step {ex.step_nr} cannot be continued: {reason} A "
                f"configuration that was changed needs another folder than {self.output_dir}."
            ) from None
        except ProcessesDifferError as ex:
            raise RecipeError(str(ex)) from None
        except (CheckpointStateNotValidError, OperationalError, OSError) as ex:
            raise RecipeError(self._not_written(ex)) from None
        except TaskStopException:
            log.info("Stopped on request at step {}; {}.", self.trainer.step_nr, self._going_on())
            raise

    def _not_written(self, error: Exception) -> str:
        """One sentence for an error over a file that could not be written.

        Raises:
            Exception: ``error`` itself, where it is another one.
        """
        failed = system_error(error)
        if failed is None:
            raise error
        # The log may be on the disk that is full; its complaints would hide this one.
        logging.raiseExceptions = False
        file = failed.filename or self.output_dir
        saved = step_folders(self.checkpoint_dir, "step_")
        whole = f"{saved[-1][1]} is whole" if saved else "Nothing was saved"
        return (
            f"{file}: {failed.strerror}; the run stops at step {self.trainer.step_nr}. {whole}, "
            f"and {self._going_on()} once there is space or access."
        )

    def _going_on(self) -> str:
        """How a run that has stopped is gone on with."""
        saved = step_folders(self.checkpoint_dir, "step_")
        if not saved:
            return "the same command begins anew"
        if self.config.regime.save_model_only in (True, "all"):
            return (
                f"a new run with `init={saved[-1][1]}` and another output folder starts from its "
                "weights, since `regime.save_model_only` leaves nothing to go on from"
            )
        return "the same command goes on from its last checkpoint"

    def _evaluate(self) -> Exception | None:
        """Evaluate the best checkpoint on every split, with all processes.

        Returns:
            What to end the run with, where a split failed.
        """
        best = from_first(lambda: self.checkpoints.load_scores()[:1], self.gangs.root.device)
        if not best:
            log.warning("No checkpoint has a validation score, so none is evaluated; set "
                        "`regime.score_metric`.")  # fmt: skip
            return None
        ((score, step),) = best
        # Not through the manager: a file that cannot be read is one sentence here.
        shards = read_state(self.checkpoint_dir / f"step_{step}")
        self.model.load_state_dict(shards[self.gangs.sdp.rank])
        self.criterion.eval()
        log.info("Evaluating the checkpoint of step {}, validation score {:.2f}.", step, score)
        facts: dict[str, Any] = {
            "criterion": self.config.criterion_section.name,
            "dataset": self.dataset.name,
            "train_pairs": self.train_pairs,
            "seed": self.config.common.seed,
            "checkpoint": f"{self.checkpoint_dir.name}/step_{step}",
            "valid_score": score,
        }
        with self.model.summon_full_parameters():
            return evaluate_splits(self.units, facts, self.output_dir)

    def _show(self) -> None:
        show_results(
            self.units,
            self.dataset,
            self.output_dir,
            examples_of=self.config.dataset.valid_split,
            with_report=self.config.report,
            warn=warn,
        )

    @override
    def request_stop(self) -> None:
        self.stop.ask()

    @override
    def close(self) -> None:
        self.trainer.close()

    @property
    @override
    def step_nr(self) -> int:
        return self.trainer.step_nr


def _is_bug(error: BaseException) -> bool:
    """Whether loading a state failed in its own code, and not over another object's state.

    PyTorch raises a ValueError for another object's state too.
    """
    if isinstance(error, InputError) or not isinstance(error, (TypeError, ValueError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or "torch" not in Path(frames[-1].filename).parts
