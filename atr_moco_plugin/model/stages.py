"""The stages at which a tower takes its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from atr_moco_plugin.tokens import TokensT


def the_stage(**given: Any) -> dict[str, Any]:
    """The one input that is given; pooled tokens may come with the tokens, for a matching head.

    Args:
        given: name to input, ``None`` where it is not given.

    Returns:
        The name and the input.

    Raises:
        ValueError: none or several are given.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) != 1 and found.keys() != {"tokens", "pooled"}:
        *names, last = given
        got = " and ".join(found) or "none of them"
        raise ValueError(f"The tower takes one of {', '.join(names)} and {last}, but got {got}.")
    return found


def cast_states(tokens: TokensT, dtype: torch.dtype) -> TokensT:
    """Tokens with their states in a dtype: stored ones may be float16, and a momentum copy is
    float32 whatever the tower is."""
    if tokens.states is None or tokens.states.dtype == dtype:
        return tokens
    return tokens._replace(states=tokens.states.to(dtype))


def cast_for_both(stage: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Stored tokens in float32 once, where a tower is float32 as its momentum copy is."""
    if dtype != torch.float32 or "tokens" not in stage:
        return stage
    return {**stage, "tokens": cast_states(stage["tokens"], dtype)}


def finished(encoder: Any, stage: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The tokens of an encoder from the stage that its input is at; stored ones in ``dtype``."""
    if "tokens" in stage:
        return cast_states(stage["tokens"], dtype)
    if "lower" in stage:
        return cast_states(encoder.upper(stage["lower"]), dtype)
    return encoder(**stage)
