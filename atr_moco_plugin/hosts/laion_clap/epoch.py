"""What happens around LAION-CLAP's ``train_one_epoch``: seeds, optimizer steps, logs."""

from __future__ import annotations

import functools
import logging
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from atr_moco_plugin.optim.step_hook import attach
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard
from atr_moco_plugin.safety.collapse import AFTER

_LOG_EVERY = 100  # as LAION-CLAP logs


def follow_epoch(train_one_epoch: Callable[..., None], rank_every: int) -> Callable[..., None]:
    """Wrap LAION-CLAP's ``train_one_epoch``.

    The criterion is attached to the optimizer: after every step the momentum copies move; a step
    that the gradient scaler leaves out is none. Random numbers start anew in every epoch from the
    seed and the epoch, so that a resumed training drops out and crops like one that was never
    stopped. A loss or gradients that are NaN or infinite stop the training on all processes alike
    before the optimizer makes its step; a gradient scaler leaves out steps whose gradients are
    infinite, so with one only the loss counts.
    Embeddings that collapse are warned of once.

    Args:
        train_one_epoch: theirs.
        rank_every: steps between two records of ``rank.jsonl`` in the log folder.
    """

    collapse = CollapseWatch(AFTER, logging.warning)

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
        clap = model.module if hasattr(model, "module") else model
        steps = data["train"].dataloader.num_batches
        last = steps * (epoch + 1)
        log = StepLog(clap, args, rank_every, tb_writer, collapse, last=last)
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
        guard = FiniteGuard(guarded, clap, last_good=_go_on)
        guard.step = step + 1
        handles = [attach(clap, every), every[-1].register_step_post_hook(stepped)]
        clap.guard = guard
        try:
            train_one_epoch(model, data, epoch, optimizer, scaler, scheduler, args, tb_writer)
            guard.check_skipped_step()
        finally:
            clap.guard = None
            guard.close()
            for handle in handles:
                handle.remove()

    return followed


class StepLog:
    """Rank records and the criterion's measures, on the first rank alone.

    Args:
        clap: the model with its criterion.
        args: LAION-CLAP's arguments.
        rank_every: steps between two records of ``rank.jsonl``.
        tb_writer: its TensorBoard writer, or ``None``.
        collapse: looks at the queues when the measures are logged.
        last: step after which the measures are logged whatever its number.
    """

    def __init__(
        self,
        clap: Any,
        args: Any,
        rank_every: int,
        tb_writer: Any,
        collapse: CollapseWatch,
        last: int,
    ) -> None:
        self._clap = clap
        self._collapse = collapse
        self._tb_writer = tb_writer
        self._last = last
        self._wandb = args.wandb
        self._on = args.rank == 0 and bool(args.logs) and args.logs.lower() != "none"
        self._rank: RankLogger | None = None
        if self._on and clap.moco.queues:
            path = os.path.join(args.logs, args.name, "rank.jsonl")
            self._rank = RankLogger(clap.moco.queues, path, every=rank_every)

    def log(self, step: int) -> None:
        """Log what is due at this step.

        Args:
            step: optimizer steps made, this one included.
        """
        if not self._on:
            return
        record = None if self._rank is None else self._rank.log(step)
        if record is not None:
            self._scalars("rank", RankLogger.scalars(record), step)
        if step % _LOG_EVERY == 1 or step == self._last:
            measures = {name: float(value) for name, value in self._clap.measures.items()}
            logging.info(
                "Criterion: step %d %s",
                step,
                " ".join(f"{name}: {value:.5g}" for name, value in measures.items()),
            )
            self._scalars("train", measures, step)
            # The measures are of one batch, too few for a verdict on the matching loss.
            steady = {name: x for name, x in measures.items() if name == "temperature"}
            self._collapse.look(step, self._clap.moco.queues, steady)

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        if self._tb_writer is not None:
            for name, value in named.items():
                self._tb_writer.add_scalar(name, value, step)
        if self._wandb:
            import wandb

            wandb.log({**named, "step": step})


def _go_on(sound: bool) -> str:
    if sound:
        return "The last checkpoint is sound: --resume it, with --precision fp32 where it was amp."
    return "Go on with --resume from a checkpoint that was saved before they were."


def _seed(seed: int, epoch: int, rank: int) -> None:
    numbers = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(int(numbers[1]))
    torch.manual_seed(int(numbers[2]))
