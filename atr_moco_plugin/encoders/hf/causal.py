"""What a text model makes of the tokens beside one, found out by asking it: whether it is causal,
as GPT is, and whether padding changes its states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.encoder import evaluating, padding_id, same_states
from atr_moco_plugin.tokens import valid_first

_LENGTH = 16


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


def padding_changes(model: Any, vocab_size: int, longest: int | None = None) -> bool:
    """Whether a caption's states are others beside a longer caption than alone, as where layers
    run over the padding (ConvBERT) or draw at random (YOSO).

    Args:
        model: of transformers; it returns states of tokens.
        vocab_size: its embeddings.
        longest: tokens that it takes at most; None where there is no limit.
    """
    length = min(_LENGTH, _LENGTH if longest is None else longest)
    short = max(1, length // 3)
    device = next(model.parameters()).device
    ids = (torch.arange(3, 3 + length, device=device) % vocab_size).expand(2, length)
    mask = valid_first(torch.tensor([short, length], device=device), length)
    padded = ids.masked_fill(~mask, padding_id(model.config, vocab_size))
    with evaluating(model):
        beside = model(input_ids=padded, attention_mask=mask.to(torch.int64))
        row = ids[:1, :short]
        alone = model(input_ids=row, attention_mask=torch.ones_like(row))
    return not same_states(beside.last_hidden_state[0, :short], alone.last_hidden_state[0])
