"""Which layers of an encoder get low-rank adapters."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.model.freezing import FreezableTower, frozen_modules

_PROJECTIONS = frozenset(
    "query key value output dense q_proj k_proj v_proj out_proj query_proj key_proj value_proj "
    "q k v o q_lin k_lin v_lin out_lin linear_q linear_k linear_v linear_out qkv Wqkv Wo".split()
)
"""What linear layers of an attention are called, in this package and in transformers."""


def find_targets(tower: FreezableTower, wanted: list[str] | None, name: str) -> list[str]:
    """Full names of the linear layers that get an adapter, none of which is frozen.

    Args:
        tower: with an ``encoder``.
        wanted: ends of their names, such as ``fc1`` or ``layers.3.fc1``; ``None`` for the
            projections of the encoder's attention.
        name: of the option, for messages.

    Raises:
        InputError: one of them matches no linear layer, or all that match are frozen.
    """
    encoder, kind = tower.encoder, type(tower.encoder).__name__
    frozen = {id(x) for part in frozen_modules(tower) for x in part.modules()}
    linear = {x: m for x, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    if not linear:
        raise InputError(
            f"`{name}` has no layer to adapt: the encoder {kind} has no linear layers "
            "(torch.nn.Linear), so leave the adapter out, or freeze some of its layers."
        )
    if wanted is None:
        found = {x for x in linear if _is_projection(encoder, x)}
        if not found:
            raise InputError(
                f"`{name}.targets` is missing: the encoder {kind} has no attention whose "
                f"projections could be found; name linear layers, such as {_some(linear)}."
            )
    else:
        found = set()
        for target in wanted:
            of_target = {x for x in linear if f".{x}".endswith(f".{target}")}
            if not of_target:
                raise InputError(f"`{name}.targets` has {target!r}, {_unmatched(encoder, target)}.")
            found |= of_target
    left = [x for x in linear if x in found and id(linear[x]) not in frozen]
    if not left:
        raise InputError(
            f"`{name}` has no layer to adapt: all of {listed(sorted(found))} are frozen, since "
            f"`freeze` is {tower.frozen}; freeze fewer layers."
        )
    return left


def _is_projection(encoder: nn.Module, name: str) -> bool:
    """Whether a linear layer is a projection of an attention, by the names of classes."""
    *places, own = name.split(".")
    above = (encoder.get_submodule(".".join(places[:end])) for end in range(1, len(places) + 1))
    return own in _PROJECTIONS and any("Attention" in type(x).__name__ for x in above)


def _unmatched(encoder: nn.Module, target: str) -> str:
    """Why a target matches no linear layer, and what would."""
    kind = type(encoder).__name__
    modules = dict(encoder.named_modules())
    other = [m for x, m in modules.items() if f".{x}".endswith(f".{target}")]
    if other:
        return f"which in the encoder {kind} is a {type(other[0]).__name__}, expected linear layers"
    linear = [x for x, m in modules.items() if isinstance(m, nn.Linear)]
    names = sorted({x.rpartition(".")[2] for x in linear} | set(linear))
    near = difflib.get_close_matches(target, names, n=3, cutoff=0.5)
    some = ", ".join(near) if near else _some(linear)
    return f"which no linear layer of the encoder {kind} is called; there are {some}"


def _some(linear: Any) -> str:
    return listed(sorted({x.rpartition(".")[2] for x in linear}))
