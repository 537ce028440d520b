"""Warning of a loop in which the criterion does not learn of optimizer steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from atr_moco_plugin.contracts import StepListener
from atr_moco_plugin.optim.step_hook import Attachment, attachment_of, changes_weights
from atr_moco_plugin.tensors.internals import write_count


class StepWatch:
    """Warns once when weights move between training passes and the criterion does not learn of it.

    It watches the write counts of a few parameters, and all of torch's optimizers by a hook, since
    fused ones and those of sharded weights do not raise the counts. Neither waits for the device.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._held: frozenset[int] = frozenset()
        self._stepped = self._warned = False

    def expect_moved_weights(self) -> None:
        """Accept whatever the weights are in the next pass: the criterion learned of a step, or
        loaded a state."""
        self._seen, self._stepped = {}, False

    def look(self, criterion: StepListener, parameters: Iterable[Tensor]) -> None:
        """Look at the start of a training pass, outside of any graph.

        Args:
            criterion: with or without an attachment.
            parameters: a few of its trained parameters.
        """
        if self._warned:
            return
        _look_at_all_optimizers()
        _WATCHES[criterion] = self
        seen, self._seen = self._seen, {id(x): write_count(x) for x in parameters}
        self._held = frozenset(self._seen)
        if attachment_of(criterion) is not None:
            # Other writes into weights may have their reasons. An optimizer makes steps.
            if self._stepped:
                self._warned = True
                warnings.warn(
                    "A second optimizer has changed the criterion's weights after the attached "
                    "one, so its momentum copies and the limits of its temperature stay behind: "
                    "call "
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
        """Take note of a step, which may be of another model's optimizer.

        Args:
            optimizer: that made the step.
            attachment: of the criterion, if it has one.
        """
        if attachment is None:
            # Empty where the criterion learned of the step within it: a wrapper is attached.
            weights = frozenset(self._seen)
        elif attachment.has(optimizer):
            return
        else:
            weights = self._held
        if not self._warned and weights and changes_weights(optimizer):
            held = (id(x) for group in optimizer.param_groups for x in group["params"])
            self._stepped = self._stepped or any(x in weights for x in held)


_WATCHES: WeakKeyDictionary[StepListener, StepWatch] = WeakKeyDictionary()


@cache
def _look_at_all_optimizers() -> None:
    def stepped(optimizer: Optimizer, *_: Any) -> None:
        for criterion, watch in list(_WATCHES.items()):
            watch.note(optimizer, attachment_of(criterion))

    register_optimizer_step_post_hook(stepped)
