"""The one way to run something once an optimizer step: a hook on the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from atr_moco_plugin.contracts import StepListener
from atr_moco_plugin.errors import InputError, listed


class Attachment:
    """What :func:`attach` returns.

    Args:
        optimizers: that the criterion is attached to.
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
_ATTACHED: WeakKeyDictionary[StepListener, Attachment] = WeakKeyDictionary()
_SKIPPED: WeakSet[Optimizer] = WeakSet()


def attach(criterion: StepListener, optimizers: Optimizer | Sequence[Optimizer]) -> Attachment:
    """Call ``criterion.on_optimizer_step()`` after every step of an optimizer.

    Torch calls the hook in ``optimizer.step()``, so batches whose gradients are accumulated count
    once. A step that changes no weight does not count: a gradient scaler skips it because float16
    overflowed, or :class:`~atr_moco_plugin.safety.finite.FiniteGuard` skips it. Where torch calls
    the hook nevertheless, as for a fused optimizer, ``criterion.on_step_skipped()`` is called, if
    there is one. Attaching to the same optimizer
    again changes nothing. A copy of the criterion is not attached.

    Trainable parameters that none of the optimizers has, and those in half precision, which small
    steps do not move, are warned of.

    Args:
        criterion: anything with ``on_optimizer_step()``, see ``docs/plugins.md``. Wrap it for FSDP
            first: that replaces its parameters.
        optimizers: one, or several that are stepped one after the other, in that order; the hook is
            on the last. Wrappers (accelerate, Lightning) hold the optimizer in ``.optimizer`` and
            are unwrapped.

    Returns:
        A handle; ``handle.remove()`` takes the hook away.

    Raises:
        InputError: nothing of the criterion's ``model`` trains, an optimizer has no parameter of
            the criterion, or the criterion is attached to another one.

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
    before = attachment_of(criterion)
    if before is not None:
        if before.is_to(every):
            return before
        raise InputError(
            "The criterion is attached to another optimizer already, and its momentum copies move "
            "once a step: call `remove()` on the handle that the first `attach` returned, or give "
            "`attach` a list of all optimizers that make a step together."
        )
    model = getattr(criterion, "model", None)
    if isinstance(model, Module) and not any(p.requires_grad for p in model.parameters()):
        raise InputError(
            "Everything of the model is frozen, so that nothing but the temperature would train: "
            "leave its projections trainable, or give an encoder fewer frozen layers (`freeze`)."
        )
    own = {id(x) for x in criterion.parameters()}
    for optimizer in every:
        if not any(id(x) in own for group in optimizer.param_groups for x in group["params"]):
            raise InputError(
                f"The {type(optimizer).__name__} has none of the criterion's parameters, so that "
                "its steps are not the criterion's: make it from `parameter_groups(criterion, "
                "...)` after FSDP has wrapped the criterion, and attach that one."
            )

    _warn_of_what_stands_still(criterion, every)

    def stepped(optimizer: Optimizer, *_: Any) -> None:
        if changes_weights(optimizer):
            criterion.on_optimizer_step()
        elif hasattr(criterion, "on_step_skipped"):
            criterion.on_step_skipped()

    attachment = Attachment(every, every[-1].register_step_post_hook(stepped))
    _ATTACHED[criterion] = attachment
    return attachment


def _warn_of_what_stands_still(criterion: StepListener, optimizers: Sequence[Optimizer]) -> None:
    """Warn of parameters that are meant to train and will not, by what is known before a step."""
    stepped = {id(x) for each in optimizers for group in each.param_groups for x in group["params"]}
    trained = [(name, x) for name, x in criterion.named_parameters() if x.requires_grad]
    if left_out := [name for name, x in trained if id(x) not in stepped]:
        warnings.warn(
            f"{len(left_out)} trainable parameters of the criterion are in no attached "
            f"optimizer: {listed(left_out)}. What no optimizer steps never trains: make it from "
            "`parameter_groups(criterion, ...)` and not from the model's parameters, give `attach` "
            "a list of all optimizers, or freeze them with `requires_grad_(False)`.",
            stacklevel=4,  # the caller of the criterion's `attach`
        )
    half = [name for name, x in trained if x.dtype in (torch.float16, torch.bfloat16)]
    if half:
        warnings.warn(
            f"{len(half)} trainable parameters are in half precision, where most steps of a small "
            "learning rate are rounded away, unless the optimizer keeps copies in float32: "
            f"{listed(half)}. Load the model in float32; autocast (`bf16=True` of Trainer) "
            "computes in half precision all the same.",
            stacklevel=4,
        )


def skip_step(optimizers: Iterable[Optimizer], skipped: bool) -> None:
    """Declare whether the next step of optimizers changes nothing, because their gradients were
    dropped. It then counts as none for the criterion that is attached to them. It holds until the
    next call.

    Args:
        optimizers: of the step.
        skipped: whether the step is skipped.
    """
    for optimizer in optimizers:
        (_SKIPPED.add if skipped else _SKIPPED.discard)(optimizer)


def attachment_of(criterion: StepListener) -> Attachment | None:
    """The active attachment of a criterion, if it has one."""
    found = _ATTACHED.get(criterion)
    return found if found is not None and found.active else None


def changes_weights(optimizer: Optimizer) -> bool:
    """Whether the present step of an optimizer changes a weight."""
    # A gradient scaler calls a fused optimizer even if gradients overflowed.
    overflow = getattr(optimizer, "found_inf", None)
    return optimizer not in _SKIPPED and not (overflow is not None and bool(overflow))


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
