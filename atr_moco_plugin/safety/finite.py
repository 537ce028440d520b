"""One check an optimizer step that loss and gradients are finite, the same on all processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from atr_moco_plugin.distributed import any_process, process_index
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.optim.step_hook import skip_step
from atr_moco_plugin.safety.message import NAMED, Fault, advice, describe, gather_findings
from atr_moco_plugin.tensors.internals import unwrapped_name

NameClips = Callable[[Sequence[int]], Mapping[int, str]]
"""Clip ids to what a user knows the clips by; ids that are left out are named by their number."""


NOT_BROKEN = -1
"""In the place of a clip id in :attr:`~atr_moco_plugin.queue.EmbeddingQueue.nonfinite_clip_ids`."""


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a weight is NaN or infinite."""


def by_number(ids: Sequence[int]) -> Mapping[int, str]:
    """Clips named by their ids."""
    return {}


def last_checkpoint(sound: bool) -> str:
    """What to go on from, where nobody knows the checkpoints."""
    if sound:
        return "The last checkpoint is sound."
    return "Go on from a checkpoint that was saved before they were."


class FiniteGuard:
    """Stops a run, or skips a step, whose loss or gradients are NaN or infinite.

    It looks right before the optimizer's step, at the losses it was shown since the last one and at
    the gradients, which costs one pass over the gradients, one exchange of a number between
    processes and one wait for the device. All processes come to the same decision, also where one
    alone has the broken batch: either all raise, or the gradients of all are dropped, so that the
    step changes no weight and no state of the optimizer. Running statistics of batch norms, which
    the forward pass has moved, go back to those of the step before.

    The schedule counts a skipped step. The criterion does not
    (:func:`~atr_moco_plugin.optim.step_hook.attach`): its momentum copies and warm-ups stay.

    In float16, the guard leaves infinite gradients to the gradient scaler. It acts only where the
    loss is not finite, see :meth:`check_skipped_step`.

    Args:
        optimizers: one, or several that are stepped one after the other, in that order; a gradient
            scaler has to unscale all of them before the first step. Steps with a closure are
            refused, since the gradients to check do not exist yet.
        criterion: what is trained; its weights are looked through when something is wrong.
        max_skipped: steps that may be left out, in the life of this object, before the run stops.
            Where a weight or a queue is broken the run stops at once: no later step can be better.
        name_clips: names the few clips of a message.
        last_good: says in a sentence which checkpoint to go on from, given whether the weights are
            still sound. It is called on process 0 alone.
        error: makes the exception from its message.
        warn: is told of each step that is left out, on process 0.

    Attributes:
        optimizers: as given, in a list.
        step: number of the optimizer step that is being made, for messages. Starts with 1 and goes
            up by itself; set it where a run resumes.
        skipped: steps left out so far.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> guard = FiniteGuard(optimizer, model)
        >>> loss = model(torch.tensor([[float("nan"), 1.0]])).mean()
        >>> guard.watch(loss, clip_ids=torch.tensor([7]))
        >>> loss.backward()
        >>> optimizer.step()
        Traceback (most recent call last):
        atr_moco_plugin.safety.finite.NonFiniteError: The loss of step 1 is nan, in a batch \
of the clips 7. The last checkpoint is sound. Go on with a lower learning rate or gradient \
clipping, or look for a broken clip in the batch.
    """

    def __init__(
        self,
        optimizers: Optimizer | Sequence[Optimizer],
        criterion: Module,
        *,
        max_skipped: int = 0,
        name_clips: NameClips = by_number,
        last_good: Callable[[bool], str] = last_checkpoint,
        error: Callable[[str], Exception] = NonFiniteError,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.optimizers = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        self._criterion = criterion
        self._max_skipped = max_skipped
        self._name_clips = name_clips
        self._last_good = last_good
        self._error = error
        self._warn = warn
        self._watched: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
        self._statistics = [
            statistic
            for module in criterion.modules()
            for name in ("running_mean", "running_var")
            if (statistic := getattr(module, name, None)) is not None
        ]
        # Only from the first good step on: until then a checkpoint may still be loaded.
        self._good_statistics: list[Tensor] = []
        self.step = 1
        self.skipped = 0
        first, last = self.optimizers[0], self.optimizers[-1]
        self._handles = [
            first.register_step_pre_hook(self._before_step),
            last.register_step_post_hook(self._after_step),
        ]

    def close(self) -> None:
        """Leave the optimizers alone from now on."""
        for handle in self._handles:
            handle.remove()
        # The step that was left out last is over; the next are nobody's.
        skip_step(self.optimizers, False)

    def watch(self, loss: Tensor, clip_ids: Tensor) -> None:
        """Show the loss of a batch; it is looked at before the next optimizer step.

        Args:
            loss: scalar, of a forward pass in training mode.
            clip_ids: ``[B]`` int64, the batch's clips; of mixtures ``[B, 2]``, -1 for no second.
        """
        queues = getattr(self._criterion, "queues", {})
        broken = {name: queue.nonfinite_clip_ids for name, queue in queues.items()}
        self._watched.append((loss.detach(), clip_ids, broken))

    def check_skipped_step(self) -> None:
        """Look at the losses of a step that a gradient scaler has left out, and tell the criterion
        of it (``on_step_skipped``): torch calls no hook of an optimizer that was not called.

        Call it on every process between two steps. Where the optimizer has made its step it does
        nothing.

        Raises:
            NonFiniteError: or what ``error`` makes, on every process.
        """
        if self._watched:
            self._check([])
            listener: Any = self._criterion
            if hasattr(listener, "on_step_skipped"):
                listener.on_step_skipped()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Mapping[str, Any]) -> None:
        # The first argument is the optimizer itself.
        if any(x is not None for x in (*args[1:], kwargs.get("closure"))):
            raise InputError(
                "The optimizer's step has a closure, in which the gradients are computed only "
                "after FiniteGuard has looked at them; leave the guard out or step without a "
                "closure."
            )
        skip_step(self.optimizers, False)
        # A fused optimizer is called by the gradient scaler also where its gradients overflowed.
        scaled = getattr(optimizer, "found_inf", None) is not None
        self._check([] if scaled else self._gradients())

    def _after_step(self, *_: Any) -> None:
        self.step += 1

    def _gradients(self) -> list[Tensor]:
        return [
            shard
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and (shard := _local(parameter.grad)).numel() > 0
        ]

    @torch.no_grad()
    def _check(self, gradients: list[Tensor]) -> None:
        watched, self._watched = self._watched, []
        values = [loss.float().sum() for loss, _, _ in watched]
        if gradients:
            values.append(get_total_norm(gradients, torch.inf).float())
        if not values:  # a process whose shards are empty still takes part in the exchange
            values.append(self.optimizers[0].param_groups[0]["params"][0].new_zeros(()))
        bad = (~torch.stack(values).isfinite()).any()
        if not any_process(bad):
            self._good_statistics = [x.clone() for x in self._statistics]
            return
        # Not strict: before the first good step there are none.
        for statistic, good in zip(self._statistics, self._good_statistics, strict=False):
            statistic.copy_(good)
        self._act(gather_findings(self._find(watched, bad.device), bad.device))

    def _act(self, findings: list[Fault]) -> None:
        text = describe(findings, self.step)
        sound = not any(x.state for x in findings)
        if not sound or self.skipped >= self._max_skipped:
            raise self._error(f"{text} {advice(findings)}")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        skip_step(self.optimizers, True)
        self.skipped += 1
        if process_index() == 0:
            self._warn(
                f"{text} The step is left out, number {self.skipped} of the {self._max_skipped} "
                "that may be."
            )

    def _find(
        self, watched: list[tuple[Tensor, Tensor, dict[str, Tensor]]], device: torch.device
    ) -> Fault:
        """What is wrong on this process; it may wait for the device as often as it likes."""
        batches = [
            (float(x), ids[ids >= 0].tolist()) for x, ids, _ in watched if not bool(x.isfinite())
        ]
        clips = list(dict.fromkeys(i for _, ids in batches for i in ids))
        rows: dict[str, list[int]] = {}
        for _, _, left_out in watched:
            for name, ids in left_out.items():
                rows.setdefault(name, []).extend(ids.tolist())
        broken = {name: [i for i in ids if i != NOT_BROKEN] for name, ids in rows.items()}
        named = sorted({i for ids in (clips, *broken.values()) for i in ids[:NAMED]})
        names = self._name_clips(named) if named else {}

        def first(ids: list[int]) -> list[str]:
            return [names.get(i, str(i)) for i in ids[:NAMED]]

        # A layer that is recomputed in the backward pass is wrapped; a checkpoint does not say so.
        parameters = {unwrapped_name(name): p for name, p in self._criterion.named_parameters()}
        state = {**parameters, **dict(self._criterion.named_buffers())}
        gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        unsound = not_finite(state)
        # A broken weight may be in the shard of another process.
        sound = not any_process(torch.tensor(bool(unsound), device=device))
        return Fault(
            process=process_index(),
            losses=[value for value, _ in batches],
            clips=first(clips),
            num_clips=len(clips),
            rows={name: (first(ids), len(ids), len(rows[name])) for name, ids in broken.items()},
            gradients=not_finite(gradients),
            state=unsound,
            last_good=self._last_good(sound) if process_index() == 0 else "",
        )


def _local(x: Tensor) -> Tensor:
    """This process's shard of a tensor that is sharded."""
    to_local = getattr(x, "to_local", None)
    return x if to_local is None else to_local()


def not_finite(named: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with a NaN or an infinity in this process's shard."""
    shards = {name: _local(x.detach()) for name, x in named.items()}
    return [
        name
        for name, x in shards.items()
        if x.is_floating_point()
        and x.numel() > 0
        # The largest value, which takes no mask as large as the tensor.
        and not bool(torch.linalg.vector_norm(x, torch.inf).isfinite())
    ]
