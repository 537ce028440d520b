"""Towers and matching head in chunks of a batch: large batches in the memory of small ones.

Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup"): the embeddings of the whole batch first, without keeping what their gradient needs;
then the loss; then each chunk once more, from the random state it had, for its gradient. PyTorch's
checkpoints do just that, so DDP, autocast and accumulation see one ordinary backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from atr_moco_plugin.contracts import Inputs, Module
from atr_moco_plugin.criterion.chunk_rows import cut
from atr_moco_plugin.distributed import pad_to
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.same_draws import SameDraws
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_rows, take_tokens

ROWS = "rows"
"""Argument of a tower that says which encoded row each item takes, see
:class:`~atr_moco_plugin.contracts.Tower`."""

ResultT = TypeVar("ResultT")


class EncodedBatch(NamedTuple):
    """What a tower and its momentum copy make of a batch.

    Attributes:
        embeddings: ``[B, d]`` of the tower, with a gradient.
        tokens: of the tower; ``None`` where they were not asked for.
        momentum: ``[B, d]`` of the copy, without a gradient; where there is none, ``embeddings``
            without one.
    """

    embeddings: Tensor
    tokens: Any
    momentum: Tensor


def encode(
    tower: Any,
    inputs: Inputs,
    chunk_size: int | None,
    *,
    momentum: Module | None = None,
    tokens: bool = False,
) -> EncodedBatch:
    """Call a tower and its momentum copy, which share what the tower's ``prepare`` makes.

    Args:
        tower: see :class:`~atr_moco_plugin.contracts.Tower`.
        inputs: its keyword arguments; every tensor has a row for each clip or caption.
        chunk_size: rows that are encoded at once, ``None`` for all. Batch norms and patterns that
            are drawn once a batch see a chunk for their batch.
        momentum: the copy of the tower.
        tokens: keep the tokens, for a matching head.

    Raises:
        InputError: the inputs cannot be cut into chunks, as their tensors have no rows in common.
    """
    if chunk_size is None:
        return _encode(tower, inputs, momentum, tokens, again=False)
    # Which row an item takes is said of the whole batch.
    taken = inputs.get(ROWS)
    inputs = {name: value for name, value in inputs.items() if name != ROWS}
    again = torch.is_grad_enabled()
    chunks = [_encode(tower, chunk, momentum, tokens, again) for chunk in cut(inputs, chunk_size)]
    found = _put_together(chunks)
    if taken is None:
        return found
    return EncodedBatch(
        take_rows(found.embeddings, taken),
        None if found.tokens is None else take_tokens(found.tokens, taken),
        take_rows(found.momentum, taken),
    )


def match_in_chunks(
    match: Callable[[TextTokens, AudioTokens, Tensor], Tensor],
    text: TextTokens,
    audio: AudioTokens,
    text_rows: Tensor,
    audio_rows: Tensor,
    *,
    items: int,
    chunk_size: int,
) -> Tensor:
    """Score pairs of tokens a few items at a time; the tokens of a chunk are taken in it.

    Args:
        match: ``(P captions, clips, [P] rows of the clips) -> logits [P, 2]``.
        text: tokens of the captions that pairs are of.
        audio: tokens of the clips.
        text_rows: ``[P]``, as :class:`~atr_moco_plugin.criterion.pairs.Pairs` orders them: the B
            items with their own, and once or twice with a negative.
        audio_rows: ``[P]``.
        items: B.
        chunk_size: items, each with its two or three pairs.

    Returns:
        ``[P, 2]`` logits, in the order of the rows.
    """
    kinds = len(text_rows) // items

    def score(of_text: Tensor, of_audio: Tensor) -> Tensor:
        rows = torch.arange(len(of_audio), device=of_audio.device)
        if kinds == 3:  # the clips of an item's own pair and of its hard caption's are one
            own = len(rows) // 3
            rows[-own:] = rows[:own]
            of_audio = of_audio[: 2 * own]
        return match(take_tokens(text, of_text), take_tokens(audio, of_audio), rows)

    again = torch.is_grad_enabled()
    parts = zip(
        text_rows.view(kinds, -1).split(chunk_size, dim=1),
        audio_rows.view(kinds, -1).split(chunk_size, dim=1),
        strict=True,
    )
    logits = [
        _run(score, of_text.flatten(), of_audio.flatten(), again=again).unflatten(0, (kinds, -1))
        for of_text, of_audio in parts
    ]
    return torch.cat(logits, dim=1).flatten(0, 1)


def use_chunks(criterion: Any, chunk_size: int | None) -> None:
    """Have a criterion run its model in chunks of a batch.

    Args:
        criterion: one that reads its attribute ``chunk_size``, as those of this package do.
        chunk_size: rows of a chunk; ``None`` changes nothing.

    Raises:
        InputError: the criterion has no such attribute, or see :func:`check_reads_chunks`.
    """
    if chunk_size is None:
        return
    if not hasattr(criterion, "chunk_size"):
        raise InputError(
            f"Gradient caching needs a criterion with `chunk_size`, but {type(criterion).__name__} "
            "has none: leave it out or take a criterion of this package."
        )
    criterion.chunk_size = chunk_size
    check_reads_chunks(criterion)
    check_chunks(chunk_size)


def check_reads_chunks(criterion: Any) -> None:
    """Refuse a class with a ``forward`` of its own beside an inherited ``chunk_size``: it would
    train with the whole batch without a word. Outside of this package a class whose ``forward``
    reads ``chunk_size`` declares it: ``chunk_size: int | None = None``.

    Raises:
        InputError: naming the class.
    """
    owner = next(x for x in type(criterion).__mro__ if "forward" in vars(x))
    own = owner.__module__.partition(".")[0] == __name__.partition(".")[0]
    if criterion.chunk_size is not None and not own and "chunk_size" not in vars(owner):
        raise InputError(
            "Gradient caching needs a `forward` that reads `chunk_size`, but that of "
            f"{owner.__name__} is its own and inherits it: leave `chunk_size` out, or declare "
            f"`chunk_size: int | None = None` in {owner.__name__} once its `forward` reads it."
        )


def check_chunks(chunk_size: int | None, *modules: Any) -> None:
    """Refuse what would train otherwise in chunks than it does with the whole batch.

    Args:
        chunk_size: rows of a chunk, ``None`` for no chunks.
        modules: what is run in chunks.

    Raises:
        InputError: a chunk of no row; a batch norm in training mode, whose statistics would be of
            a chunk, and the running ones would count each chunk twice; or weights that FSDP has
            sharded, which it would not gather again for the second chunk's backward pass.
    """
    if chunk_size is None:
        return
    if chunk_size < 1:
        raise InputError(f"`chunk_size` of gradient caching is {chunk_size}, expected 1 or more.")
    for module in modules:
        if any(hasattr(p, "to_local") for p in module.parameters()):
            raise InputError(
                "Gradient caching does not go with FSDP, which shards a part again before the next "
                "chunk needs it: use DDP, or leave `chunk_size` out."
            )
        for name, part in module.named_modules() if isinstance(module, nn.Module) else ():
            if isinstance(part, _BatchNorm) and part.training:
                raise InputError(
                    f"Gradient caching runs the model in chunks, but {name!r} is a batch norm, "
                    "whose statistics are those of a whole batch: freeze the encoder that it is "
                    "in, or leave `chunk_size` out."
                )


def _encode(tower: Any, inputs: Inputs, momentum: Any, tokens: bool, again: bool) -> EncodedBatch:
    """:func:`encode` of a batch or a chunk at once.

    Args:
        again: compute what the gradient needs again in the backward pass.
    """
    prepare = getattr(tower, "prepare", None)
    if prepare is not None:
        inputs = prepare(**inputs)
    found, states = _run(partial(_call, tower, tokens), dict(inputs), again=again)
    return EncodedBatch(
        found, states, found.detach() if momentum is None else momentum(**inputs)[0]
    )


def _call(tower: Any, tokens: bool, inputs: Inputs) -> tuple[Tensor, Any]:
    # Tokens that nobody reads are not even returned: a checkpoint would keep them.
    embeddings, states = tower(**inputs)
    return embeddings, states if tokens else None


def _run(function: Callable[..., ResultT], *args: Any, again: bool) -> ResultT:
    """Call a function, in ``again`` so that its backward pass calls it again."""
    if not again:
        return function(*args)
    # By position: the devices whose random states are saved are found in these arguments alone.
    # A compiler traces neither the states of NumPy nor those of Python.
    called = function if torch.compiler.is_compiling() else SameDraws(function)
    found: ResultT = checkpoint(called, *args, use_reentrant=False, preserve_rng_state=True)
    return found


def _put_together(chunks: Sequence[EncodedBatch]) -> EncodedBatch:
    embeddings, tokens, momentum = zip(*chunks, strict=True)
    return EncodedBatch(
        torch.cat(embeddings),
        None if tokens[0] is None else _join(tokens),
        torch.cat(momentum),
    )


def _join(tokens: Sequence[Any]) -> Any:
    """Tokens of chunks one after the other, each padded to the longest."""
    longest = max(x.mask.size(1) for x in tokens)
    columns = [
        None if parts[0] is None else torch.cat([pad_to(x, 1, longest) for x in parts])
        for parts in zip(*tokens, strict=True)
    ]
    return type(tokens[0])(*columns)
