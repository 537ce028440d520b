"""Whether a text model is causal, as GPT is, found out by asking it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.encoder import evaluating


def states_of_two(model: nn.Module, vocab_size: int) -> Any:
    """What a transformers model makes of two captions of two tokens that begin alike,
    ``[2, 2, width]``, in eval mode; None where it returns no states of tokens."""
    device = next(model.parameters()).device
    ids = torch.tensor([[3, 4], [3, 5]], device=device) % vocab_size
    with evaluating(model):
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return getattr(found, "last_hidden_state", None)


def begin_alike(states: Tensor) -> bool:
    """Whether the first of both tokens has the same state whatever the second is, as in a model
    whose tokens see none of those after them. It then says nothing of a caption.

    Args:
        states: of :func:`states_of_two`.
    """
    first, second = states[:, 0].float()
    return torch.allclose(first, second, rtol=0, atol=1e-6)
