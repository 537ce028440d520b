"""What happens around LAION-CLAP's ``train_one_epoch``: seeds, optimizer steps, logs."""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from atr_moco_plugin.criterion import MocoAtc
from atr_moco_plugin.criterion.kept_options import other_length
from atr_moco_plugin.criterion.queue_pair import stale_copies
from atr_moco_plugin.hosts.laion_clap.internals import pairs_an_epoch, steps_an_epoch
from atr_moco_plugin.hosts.laion_clap.resume import kept_length, write_kept
from atr_moco_plugin.hosts.laion_clap.tars import TarClips
from atr_moco_plugin.optim.step_hook import attach
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard
from atr_moco_plugin.safety.collapse import AFTER
from atr_moco_plugin.teaching import use_teachers

_LOG_EVERY = 100  # as LAION-CLAP logs


def follow_epoch(train_one_epoch: Callable[..., None], rank_every: int) -> Callable[..., None]:
    """Wrap LAION-CLAP's ``train_one_epoch``.

    The criterion is attached to the optimizer: after every step the momentum copies move; a step
    that the gradient scaler leaves out is none. Random numbers start anew in every epoch from the
    seed and the epoch, so that a resumed training drops out and crops like one that was never
    stopped. A loss or gradients that are NaN or infinite stop the training on all processes alike
    before the optimizer makes its step; a gradient scaler leaves out steps whose gradients are
    infinite, so with one only the loss counts.
    Embeddings that collapse are warned of once. Before the first step teachers are checked, and
    queues that grow are bound by an epoch.

    Args:
        train_one_epoch: theirs.
        rank_every: steps between two records of ``rank.jsonl`` in the log folder.
    """

    collapse: CollapseWatch | None = None

    @functools.wraps(train_one_epoch)
    def followed(
        model: nn.Module,
        data: Any,
        epoch: int,
        optimizer: Any,
        scaler: Any,
        scheduler: Any,
        args: Any,
        tb_writer: Any = None,
    ) -> None:
        nonlocal collapse
        clap: Any = model.module if hasattr(model, "module") else model
        steps = steps_an_epoch(data)
        clap.moco.total_steps = steps * args.epochs
        if collapse is None:
            _begin(clap.moco, data, args)
            collapse = CollapseWatch(AFTER, logging.warning, clap.moco)
        log = StepLog(clap, args, tb_writer, rank_every, collapse, last=steps * (epoch + 1))
        if log.folder is not None:
            write_kept(log.folder, clap.moco)
        step = steps * epoch

        def stepped(*_: Any) -> None:
            nonlocal step
            step += 1
            log.log(step)

        _seed(args.seed, epoch, args.rank)
        # With --split-opt there are two; the later one ends the step.
        every = list(optimizer.values()) if isinstance(optimizer, dict) else [optimizer]
        # A scaler unscales the gradients of one right before its step, and looks at them itself.
        guarded = every if scaler is None else every[-1:]
        with ExitStack() as hooks:
            clap.guard = FiniteGuard(guarded, clap, last_good=_last_good)
            clap.guard.step = step + 1
            hooks.callback(setattr, clap, "guard", None)
            hooks.callback(clap.guard.close)
            hooks.callback(attach(clap, every).remove)
            hooks.callback(every[-1].register_step_post_hook(stepped).remove)
            train_one_epoch(model, data, epoch, optimizer, scaler, scheduler, args, tb_writer)
            clap.guard.check_skipped_step()

    return followed


def _begin(criterion: Any, data: Any, args: Any) -> None:
    """What is done once, before the first step of a process."""
    if getattr(criterion, "is_taught", False):
        use_teachers(criterion, TarClips(args.train_data), say=logging.info)
    pairs = pairs_an_epoch(data)
    if isinstance(criterion, MocoAtc):
        criterion.limit_growth(pairs)
    told = [stale_copies(criterion.queues, pairs)]
    if args.resume is not None:
        before = kept_length(Path(args.resume))
        told.append(other_length(criterion, before, criterion.total_steps))
    for warning in told:
        if warning is not None and args.rank == 0:
            logging.warning(warning)


@dataclass
class StepLog:
    """Rank records and the criterion's measures, in the first process alone.

    Attributes:
        clap: the model with its criterion.
        args: LAION-CLAP's arguments.
        tb_writer: its TensorBoard writer, or ``None``.
        rank_every: steps between two records of ``rank.jsonl``.
        collapse: looks at the queues when the measures are logged.
        last: a step after which the measures are always logged.
        folder: the run's folder of logs; ``None`` where nothing is logged.
    """

    clap: Any
    args: Any
    tb_writer: Any
    rank_every: int
    collapse: CollapseWatch
    last: int

    def __post_init__(self) -> None:
        logs = self.args.logs
        on = self.args.rank == 0 and bool(logs) and logs.lower() != "none"
        self.folder = Path(logs, self.args.name) if on else None
        self._rank: RankLogger | None = None
        if self.folder is not None and self.clap.moco.queues:
            path = self.folder / "rank.jsonl"
            self._rank = RankLogger(self.clap.moco.queues, path, every=self.rank_every)

    def log(self, step: int) -> None:
        """Log what is due at this step.

        Args:
            step: optimizer steps made, this one included.
        """
        if self.folder is None:
            return
        record = None if self._rank is None else self._rank.log(step)
        if record is not None:
            self._scalars("rank", RankLogger.scalars(record), step)
        if step % _LOG_EVERY == 1 or step == self.last:
            found = {name: float(value) for name, value in self.clap.measures.items()}
            # NaN beside a loss that is none was not measured, such as a loss that has not begun.
            lost = math.isnan(found["loss"])
            measures = {name: x for name, x in found.items() if lost or not math.isnan(x)}
            logging.info(
                "Criterion: step %d %s",
                step,
                " ".join(f"{name}: {value:.5g}" for name, value in measures.items()),
            )
            self._scalars("train", measures, step)
            # The measures are of one batch, too few for a verdict on the matching loss.
            steady = {name: x for name, x in measures.items() if name == "temperature"}
            self.collapse.look(step, self.clap.moco.queues, steady)

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        if self.tb_writer is not None:
            for name, value in named.items():
                self.tb_writer.add_scalar(name, value, step)
        if self.args.wandb:
            import_module("wandb").log({**named, "step": step})


def _last_good(sound: bool) -> str:
    if sound:
        return "The last checkpoint is sound: --resume it, with --precision fp32 where it was amp."
    return "Go on with --resume from a checkpoint that was saved before they were."


def _seed(seed: int, epoch: int, rank: int) -> None:
    numbers = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(int(numbers[1]))
    torch.manual_seed(int(numbers[2]))
