"""What differs between fairseq2 0.7 and 0.8, and what we use of fairseq2's private parts.

0.8 is the version that the rest is written for. Under 0.7, which pip resolves beside laion-clap,
the names below are the closest ones. No other module of this package asks for the version or
touches a private name of fairseq2. ``tests/hosts/fairseq2/test_internals.py`` guards the private
parts of 0.8, and is skipped under 0.7. ``runs/resume.py`` knows keys of a schedule's state, such as
``last_epoch``, which are PyTorch's.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import fairseq2
from fairseq2.checkpoint import CheckpointManager
from fairseq2.gang import Gangs, broadcast_flag
from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.model import RecipeModel
from torch.distributed.fsdp import FSDPModule
from torch.nn import Module

from atr_moco_plugin.io.checkpoints import read_torch, unsafe_globals
from atr_moco_plugin.io.processes import is_first_process

ConfigT = TypeVar("ConfigT")
DatasetT = TypeVar("DatasetT")

V08 = tuple(int(x) for x in fairseq2.__version__.split(".")[:2]) >= (0, 8)

if TYPE_CHECKING or V08:
    from fairseq2.checkpoint import CheckpointDir
    from fairseq2.model_checkpoint import CorruptModelCheckpointError
    from fairseq2.nn.data_parallel import get_data_parallel_facade
    from fairseq2.recipe.base import Recipe
    from fairseq2.recipe.cli import main

    # The old homes of the units: the new ones cannot be imported first.
    from fairseq2.recipe.evaluator import EvalUnit as EvalUnit
    from fairseq2.recipe.trainer import TrainUnit as TrainUnit
    from fairseq2.task import Task as Task
    from fairseq2.task import TaskStopException as TaskStopException
    from fairseq2.trainer import Trainer as Trainer

    EvalRecipe: TypeAlias = Recipe
    TrainRecipe: TypeAlias = Recipe
    evaluation_main = training_main = main
    ModelFileError = CorruptModelCheckpointError
else:
    from fairseq2.model_checkpoint import ModelCheckpointError as ModelFileError  # noqa: F401
    from fairseq2.recipe import cli as _cli
    from fairseq2.recipe.base import EvalRecipe as _EvalRecipe
    from fairseq2.recipe.base import TrainRecipe as _TrainRecipe
    from fairseq2.recipe.evaluator import EvalUnit as _EvalUnit
    from fairseq2.recipe.model import _StandardRecipeModel
    from fairseq2.recipe.task import Task as Task
    from fairseq2.recipe.task import TaskStopException
    from fairseq2.recipe.trainer import Trainer
    from fairseq2.recipe.trainer import TrainUnit as _TrainUnit

    BatchT = TypeVar("BatchT", contravariant=True)

    class TrainRecipe(_TrainRecipe):
        """A training recipe with the method of 0.8."""

        def create_trainer(self, context: RecipeContext) -> Any:
            return self.create_task(context)

    class EvalRecipe(_EvalRecipe):
        """An evaluation recipe with the method of 0.8."""

        def create_evaluator(self, context: RecipeContext) -> Any:
            return self.create_task(context)

    class TrainUnit(_TrainUnit[BatchT]):
        """A unit whose ``model``, which 0.7 asks for, :func:`create_trainer` sets."""

        model: Any = None

    class EvalUnit(_EvalUnit[BatchT]):
        """A unit whose ``model``, which 0.7 asks for, :func:`create_trainer` sets."""

        model: Any = None

    def training_main(recipe: TrainRecipe) -> None:
        """Run a training recipe with the arguments of the command line."""
        _without_rich()
        _cli.train_main(recipe)

    def evaluation_main(recipe: EvalRecipe) -> None:
        """Run an evaluation recipe with the arguments of the command line."""
        _without_rich()
        _cli.eval_main(recipe)

    def _without_rich() -> None:
        """Do what ``--no-rich`` does in 0.8: plain lines in the log, no progress bars."""
        if "--no-rich" in sys.argv:
            sys.argv.remove("--no-rich")
            os.environ["FAIRSEQ2_NO_PROGRESS"] = "1"
            _cli.configure_rich_logging = _configure_plain_logging

    def _configure_plain_logging() -> None:
        logger = logging.getLogger("fairseq2")
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        first = is_first_process()
        handler = logging.StreamHandler() if first else logging.NullHandler()
        line = "%(asctime)s %(levelname)s: %(name)s - %(message)s"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def config_as(context: RecipeContext, kls: type[ConfigT]) -> ConfigT:
    """The recipe's configuration."""
    return context.get_config_as(kls) if V08 else context.config.as_(kls)


def dataset_as(context: RecipeContext, kls: type[DatasetT]) -> DatasetT:
    """The data set of the section ``dataset``."""
    return context.get_dataset_as(kls) if V08 else context.default_dataset.as_(kls)


def trained_module(context: RecipeContext) -> Any:
    """The module that is trained, without the wrapper for data parallelism."""
    return context.get_model() if V08 else context.model.base_module


def data_parallel_model(context: RecipeContext) -> Module:
    """The module that is trained, in the wrapper for data parallelism where there is one."""
    return context.get_data_parallel_model() if V08 else context.model.module


def parallel_facade(context: RecipeContext) -> Any:
    """What loads this process's part of a checkpoint (``load_state_dict``), and makes the model
    whole on every process for an evaluation (``summon_full_parameters``)."""
    return get_data_parallel_facade(data_parallel_model(context)) if V08 else context.model


def checkpoint_dir(context: RecipeContext) -> Path:
    """The folder where the trainer saves."""
    chosen = context.resolver.resolve(CheckpointDir).path if V08 else None
    return chosen or context.output_dir / "checkpoints"


def replaced(model: RecipeModel, module: Module) -> Any:
    """What ``prepare_model`` returns to have another module trained in place of the model's."""
    if V08:
        # fairseq2 keeps the `module` of what this older hook returns.
        return SimpleNamespace(module=module)
    return _StandardRecipeModel(  # type: ignore[name-defined]  # under 0.7
        module, model.config, model.family, model.newly_initialized
    )


def create_trainer(
    context: RecipeContext, unit: Any, reader: Any, valid_unit: Any, valid_reader: Any
) -> Trainer:
    """Make fairseq2's trainer with one unit to train and one to validate.

    Its checkpoints are read with ``torch.load(weights_only=True)``, a checkpoint is complete only
    when its score is known, and the process groups stay open when the training is done.
    """
    if not V08:
        unit.model = valid_unit.model = context.model
    trainer: Any = context.create_trainer(unit, reader, [valid_unit], [valid_reader])
    checkpoints = context.resolver.resolve(CheckpointManager)
    # fairseq2 reads the model alone with weights_only, and writes the other parts in a pickle
    # protocol that cannot be read so.
    prefix = "_tensor_file" if V08 else "_tensor"
    files = _WeightsOnlyFiles(getattr(checkpoints, f"{prefix}_dumper"))
    setattr(checkpoints, f"{prefix}_dumper", files)
    setattr(checkpoints, f"{prefix}_loader", files)
    # A validator would complete a checkpoint before its score is known; a run that is killed then
    # would go on from there and never validate it.
    trainer._validator._checkpoint_manager = SimpleNamespace(
        load_scores=checkpoints.load_scores, maybe_complete_save_operation=lambda: None
    )
    # The trainer would close the process groups, and the evaluation after it needs them.
    gangs = trainer._gangs
    trainer._gangs = _OpenGangs(**{x.name: getattr(gangs, x.name) for x in fields(gangs)})
    return trainer  # type: ignore[no-any-return]  # private attributes were set above


def save_and_stop(trainer: Any, checkpoints: CheckpointManager, gangs: Gangs) -> NoReturn:
    """Save a checkpoint of the steps so far, where there is none yet, and end the run.

    A trainer's own ``request_stop`` does nothing where a run has a number of steps. Every process
    calls it, between two steps.

    Raises:
        TaskStopException: always.
    """
    trainer._maybe_complete_checkpoint_save_operation()
    saved = trainer.step_nr in (0, checkpoints.maybe_get_last_step_number(exclude_model_only=True))
    if not broadcast_flag(gangs.root, saved):
        trainer._save_checkpoint(blocking=True)
    gangs.close()
    raise TaskStopException()


def name_gradient_sync(sharded: Module) -> None:
    """Give an FSDP module ``set_requires_grad_sync``, which fairseq2's ``no_sync`` calls.

    Torch has that method as ``set_requires_gradient_sync``.
    """
    if isinstance(sharded, FSDPModule) and not hasattr(sharded, "set_requires_grad_sync"):
        setattr(sharded, "set_requires_grad_sync", sharded.set_requires_gradient_sync)  # noqa: B010


def lists_environment(record: logging.LogRecord) -> bool:
    """Whether a log record is fairseq2's list of all environment variables."""
    return record.getMessage().startswith("Environment Variables")


def is_configuration_error(error: BaseException) -> bool:
    """Whether fairseq2 fell over a configuration, such as ``.inf`` for a whole number."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(x.name == "load" and x.filename.endswith("cli.py") for x in frames)


class _OpenGangs(Gangs):
    """Process groups that the trainer does not close."""

    def close(self) -> None:
        pass


class _WeightsOnlyFiles:
    """Takes the place of fairseq2's loader and dumper of tensor files.

    Args:
        dumper: fairseq2's.
    """

    def __init__(self, dumper: Any) -> None:
        self._dumper = dumper
        self._warned = False

    def load(self, file: Path, *args: Any, **options: Any) -> Any:
        return read_torch(file)

    def dump(self, data: Mapping[str, object], file: Path, *args: Any, **options: Any) -> None:
        self._dumper.dump(data, file)  # in protocol 2
        names = unsafe_globals(file)
        if names and not self._warned:
            self._warned = True
            log.warning(
                "{} holds `{}`, which `torch.load(weights_only=True)` refuses, so that this run "
                "cannot go on from its checkpoints. If it is harmless, let the plugin's module "
                "call `torch.serialization.add_safe_globals`.",
                file, ", ".join(names),
            )  # fmt: skip
