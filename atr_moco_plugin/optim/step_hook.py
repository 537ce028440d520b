"""The one way to run what a criterion does once an optimizer step: a hook on the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.internals import write_count


class Attachment:
    """What :func:`attach` returns.

    Args:
        optimizers: those that the criterion is attached to.
        handle: of the hook on the last of them.
    """

    def __init__(self, optimizers: Sequence[Optimizer], handle: RemovableHandle) -> None:
        # Not the optimizers themselves: one that is gone holds nothing.
        self._optimizers = [ref(x) for x in optimizers]
        self._handle: RemovableHandle | None = handle

    @property
    def active(self) -> bool:
        """Whether the hook is still there."""
        return self._handle is not None and all(x() is not None for x in self._optimizers)

    def is_to(self, optimizers: Sequence[Optimizer]) -> bool:
        """Whether it is to these optimizers, in this order."""
        return [id(x()) for x in self._optimizers] == [id(x) for x in optimizers]

    def has(self, optimizer: Optimizer) -> bool:
        """Whether it is to this optimizer, alone or among others."""
        return any(x() is optimizer for x in self._optimizers)

    def remove(self) -> None:
        """Leave the optimizers alone from now on."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None


# Beside the criteria and not in them: a copied or pickled criterion is attached to nothing.
_ATTACHED: WeakKeyDictionary[Module, Attachment] = WeakKeyDictionary()
_LEFT_OUT: WeakSet[Optimizer] = WeakSet()


def attach(criterion: Module, optimizers: Optimizer | Sequence[Optimizer]) -> Attachment:
    """Have ``criterion.on_optimizer_step()`` called after every step that an optimizer makes.

    Torch calls the hook in ``optimizer.step()``, so batches whose gradients are accumulated count
    once. Steps that change no weight do not count: those that a gradient scaler leaves out because
    float16 overflowed, and those that :class:`~atr_moco_plugin.safety.finite.FiniteGuard` leaves
    out. After the latter ``criterion.on_step_skipped()`` is called, where there is one. Attaching
    to the same optimizer once more changes nothing. A copy of the criterion is not attached.

    Args:
        criterion: anything with ``on_optimizer_step()``, see ``docs/plugins.md``. Wrap it for FSDP
            first: that replaces its parameters.
        optimizers: one, or several that are stepped one after the other, in that order; the hook is
            on the last. Wrappers with the optimizer in ``.optimizer`` (accelerate, Lightning) are
            looked through.

    Returns:
        A handle; ``handle.remove()`` takes the hook away.

    Raises:
        InputError: an optimizer has no parameter of the criterion, or the criterion is attached to
            another one.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Counts(nn.Linear):
        ...     steps = 0
        ...     def on_optimizer_step(self):
        ...         self.steps += 1
        >>> criterion = Counts(2, 1)
        >>> optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
        >>> handle = attach(criterion, optimizer)
        >>> optimizer.step()
        >>> criterion.steps
        1
    """
    several = optimizers if isinstance(optimizers, (list, tuple)) else [optimizers]
    every = [_unwrapped(x) for x in several]
    if not every:
        raise InputError("`attach` got an empty list; give it the optimizer that makes the steps.")
    before = _attachment(criterion)
    if before is not None:
        if before.is_to(every):
            return before
        raise InputError(
            "The criterion is attached to another optimizer already, and its momentum copies move "
            "once a step: call `remove()` on the handle that the first `attach` returned, or give "
            "`attach` a list of all optimizers that make a step together."
        )
    own = {id(x) for x in criterion.parameters()}
    for optimizer in every:
        if not any(id(x) in own for group in optimizer.param_groups for x in group["params"]):
            raise InputError(
                f"The {type(optimizer).__name__} has none of the criterion's parameters, so that "
                "its steps are not the criterion's: make it from `parameter_groups(criterion, "
                "...)` after FSDP has wrapped the criterion, and attach that one."
            )

    def stepped(optimizer: Optimizer, *_: Any) -> None:
        if _moves_weights(optimizer):
            criterion.on_optimizer_step()
        elif optimizer in _LEFT_OUT and hasattr(criterion, "on_step_skipped"):
            criterion.on_step_skipped()

    attachment = Attachment(every, every[-1].register_step_post_hook(stepped))
    _ATTACHED[criterion] = attachment
    return attachment


def leave_out(optimizers: Iterable[Optimizer], left_out: bool) -> None:
    """Say whether the step that optimizers are about to make changes nothing, so that it is none
    for what is attached to them. It holds until it is said again.

    Args:
        optimizers: their gradients have been dropped where ``left_out``.
        left_out: whether the step is left out.
    """
    for optimizer in optimizers:
        (_LEFT_OUT.add if left_out else _LEFT_OUT.discard)(optimizer)


class StepWatch:
    """Warns once of weights that move between training passes without a word to the criterion.

    Two things tell, and neither looks at the device: the version counters of a few parameters, which
    writes in place raise, and a hook on all of torch's optimizers, since fused ones and those of
    sharded weights do not raise them.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._held: set[int] = set()
        self._stepped = self._warned = False

    def told(self) -> None:
        """Take the weights as they will be in the next pass: a step was made known, or a state was
        loaded."""
        self._seen, self._stepped = {}, False

    def look(self, criterion: Module, parameters: Iterable[Tensor]) -> None:
        """Look at the start of a pass that trains, outside of any graph.

        Args:
            criterion: what may be attached.
            parameters: a few of those that are trained.
        """
        if self._warned:
            return
        _look_at_all_optimizers()
        _WATCHES[criterion] = self
        seen, self._seen = self._seen, {id(x): write_count(x) for x in parameters}
        self._held = set(self._seen)
        if _attachment(criterion) is not None:
            # What else writes into weights may have its reasons; an optimizer makes steps.
            if self._stepped:
                self._warned = True
                warnings.warn(
                    "An optimizer that the criterion is not attached to has made a step with the "
                    "criterion's weights after the last one that it is attached to, so that its "
                    "momentum copies and the limits of its temperature stay behind: call "
                    "`remove()` on the handle that `attach` returned and attach the new optimizer, "
                    "or give `attach` a list of all optimizers, in the order of their steps.",
                    stacklevel=2,
                )
            return
        moved = any(seen.get(key, version) != version for key, version in self._seen.items())
        if moved or self._stepped:
            self._warned = True
            warnings.warn(
                "The weights have moved since the last training pass, but the criterion was not "
                "told of an optimizer step, so that its momentum copies, its step count and the "
                "limits of its temperature stay behind: write `criterion.attach(optimizer)` before "
                "the loop, or call `criterion.on_optimizer_step()` after every `optimizer.step()`.",
                stacklevel=2,
            )

    def note(self, optimizer: Optimizer, attachment: Attachment | None) -> None:
        """Take notice of a step, which may be of another model's optimizer.

        Args:
            optimizer: made the step.
            attachment: of the criterion, if it is attached.
        """
        if attachment is None:
            # None are seen where the criterion was told within the step: a wrapper is attached.
            weights = self._seen.keys()
        elif attachment.has(optimizer):
            return
        else:
            weights = self._held
        if not self._warned and weights and _moves_weights(optimizer):
            held = (id(x) for group in optimizer.param_groups for x in group["params"])
            self._stepped = self._stepped or any(x in weights for x in held)


_WATCHES: WeakKeyDictionary[Module, StepWatch] = WeakKeyDictionary()


def _attachment(criterion: Module) -> Attachment | None:
    found = _ATTACHED.get(criterion)
    return found if found is not None and found.active else None


def _moves_weights(optimizer: Optimizer) -> bool:
    """Whether the step that an optimizer is making changes a weight."""
    # A gradient scaler calls a fused optimizer also where gradients overflowed.
    overflow = getattr(optimizer, "found_inf", None)
    return optimizer not in _LEFT_OUT and not (overflow is not None and bool(overflow))


@cache
def _look_at_all_optimizers() -> None:
    def stepped(optimizer: Optimizer, *_: Any) -> None:
        for criterion, watch in list(_WATCHES.items()):
            watch.note(optimizer, _attachment(criterion))

    register_optimizer_step_post_hook(stepped)


def _unwrapped(optimizer: Any) -> Optimizer:
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"`attach` needs an optimizer of torch, or a list of them, but got a "
            f"{type(optimizer).__name__}; call `criterion.on_optimizer_step()` after each step of "
            "one that is none."
        )
    return optimizer
