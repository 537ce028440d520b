"""The weights of momentum copies in the criterion's state; what they share with their towers is
there once.

A state saved when less or more was frozen loads too. Of what is shared now the online weights
count; of what was shared then the average starts from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.tensors.internals import unwrapped_name


def leave_out_shared(criterion: Any, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """A hook after ``state_dict``: leave out the second name of every shared weight.

    Args:
        criterion: with ``model`` and ``momentum_copies``.
        state_dict: of it, changed in place.
        prefix: of its names.
    """
    for copy, tower, name in _copies(criterion):
        for shared in copy.shared_names(tower):
            state_dict.pop(f"{prefix}{name}_m.module.{shared}", None)


def fill_in_shared(criterion: Any, state_dict: dict[str, Any], prefix: str) -> None:
    """Before a state is loaded: give the momentum copies the weights that are saved once.

    Args:
        criterion: as of :func:`leave_out_shared`.
        state_dict: for it, changed in place.
        prefix: of its names.
    """
    for copy, tower, name in _copies(criterion):
        online, average = f"{prefix}model.{name}.", f"{prefix}{name}_m.module."
        saved = {
            unwrapped_name(key.removeprefix(online)): value
            for key, value in state_dict.items()
            if key.startswith(online)
        }
        # A state without any is of no momentum criterion: its copies are made anew.
        has_copy = any(key.startswith(average) for key in state_dict)
        shared = copy.shared_names(tower)
        for parameter, _ in copy.module.named_parameters():
            # A state of before adapters: the layers that have one now were plain in it.
            plain = parameter.replace(".base_layer.", ".")
            if parameter in shared and parameter in saved:
                state_dict[average + parameter] = saved[parameter]
            elif parameter in shared and plain in saved:
                state_dict[average + plain] = saved[plain]
            elif has_copy and parameter in saved:
                state_dict.setdefault(average + parameter, saved[parameter])


def copy_towers_that_were_not_saved(criterion: Any, missing: Any) -> None:
    """A hook after a state without momentum weights was loaded (``strict=False``): copy the online
    towers, since the copies still have the weights from before.

    Args:
        criterion: as of :func:`leave_out_shared`.
        missing: what torch reports of the loading.
    """
    for copy, tower, name in _copies(criterion):
        if any(key.rpartition(f"{name}_m.module.")[1] for key in missing.missing_keys):
            copy.update(tower, momentum=0.0)
            warnings.warn(
                f"The checkpoint has no momentum copy of the {name} tower; it starts from the "
                "online weights.",
                stacklevel=2,
            )


def _copies(criterion: Any) -> Iterator[tuple[MomentumCopy, Any, str]]:
    for name, copy in criterion.momentum_copies.items():
        yield copy, getattr(criterion.model, name), name
