"""What text and audio encoders of the transformers library share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.eval_mode import eval_mode

_TOLERANCE = 1e-3  # of the size of the states; rounding makes 1e-5 of it in float32
_ROUNDINGS = 32  # of half precision; a MiniLM differs by 10 of them


class HfEncoder(nn.Module):
    """An encoder of the transformers library.

    Args:
        model: the transformers model, without pooler and heads.

    Attributes:
        model: the same.
        width: width of the token states.
    """

    weights_option = "pretrained"
    model: Any
    width: int

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        width = getattr(self.model.config, "hidden_size", None)
        if not isinstance(width, int):
            raise InputError(
                f"A {self.model.config.model_type} has no one `hidden_size`: take a model with one "
                "encoder, such as bert or wav2vec2."
            )
        self.width = width
        # By name and once: a host may wrap some of them, which are then of two types.
        self._layers = _name_of_layers(self.model)

    @property
    def layers(self) -> nn.ModuleList | None:
        """The encoder's layers, from input to output; ALBERT's, which share weights, are one.
        None where no list has whole layers, as in XLM, which has one of attentions and one of each
        other part."""
        if self._layers is None:
            return None
        layers: nn.ModuleList = self.model.get_submodule(self._layers)
        return layers

    def no_weight_decay(self) -> set[str]:
        """Learned tokens and positions that are added like a bias."""
        return {name for name, p in self.named_parameters() if p.ndim > 2 and len(p) == 1}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module without dropout, gradients and autocast, then put its modes and the random
    state back, from which some models draw in eval mode too."""
    device = next(module.parameters()).device
    drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with torch.no_grad(), torch.autocast(device.type, enabled=False), eval_mode([module]), drawn:
        yield


def same_states(found: Tensor, expected: Tensor) -> bool:
    """Whether states of the same tokens, computed twice, differ by no more than rounding in their
    dtype, which hides small differences in half precision."""
    if found.shape != expected.shape:
        return False
    share = max(_TOLERANCE, _ROUNDINGS * torch.finfo(expected.dtype).eps)
    found, expected = found.float(), expected.float()
    return not bool((found - expected).abs().max() > share * expected.square().mean().sqrt())


def padding_id(config: Any, vocab_size: int) -> int:
    """The id that a transformers model pads with; 0 where it names none that it has a row for, as
    Llamas with -1."""
    pad = getattr(config, "pad_token_id", None)
    return pad if isinstance(pad, int) and 0 <= pad < vocab_size else 0


def _name_of_layers(model: nn.Module) -> str | None:
    """The largest list of modules of one type that is in no other list, unless there is a list of
    as many modules beside it."""
    lists = {x: m for x, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    outer = {
        name: module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists)
    }
    alike = {name: m for name, m in outer.items() if len({type(x) for x in m}) == 1}
    if not alike:
        return None
    largest = max(alike, key=lambda name: _size(alike[name]))
    beside = [
        module
        for name, module in outer.items()
        if name.rpartition(".")[0] == largest.rpartition(".")[0] and _size(module)
    ]
    return None if sum(len(x) == len(alike[largest]) for x in beside) > 1 else largest


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
