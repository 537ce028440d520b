"""Tensors that two names of a module share, which ``safetensors`` does not save twice."""

from __future__ import annotations

from typing import Any

from torch import nn


def shared_names(module: nn.Module) -> dict[str, str]:
    """The second name of a parameter or buffer, to its first name."""
    first: dict[int, str] = {}
    shared = {}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            if first.setdefault(id(tensor), name) != name:
                shared[name] = first[id(tensor)]
    return shared


def drop_shared(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """safetensors refuses tensors that share memory, as tied weights of an encoder do."""
    for name in shared_names(module):
        state.pop(prefix + name, None)


def restore_shared(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A pre-hook of ``load_state_dict`` that puts back what :func:`drop_shared` left out."""
    for name, first in shared_names(module).items():
        if prefix + first in state:
            state.setdefault(prefix + name, state[prefix + first])
