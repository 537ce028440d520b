"""What this host replaces inside LAION-CLAP, and what it knows of the layout of its outputs and
loaders; ``tests/hosts/laion_clap/test_internals.py`` says what to do where a release moves it.

Not here: ``towers``, ``model`` and ``weights`` use members of the model by the names that its
checkpoints have too (``audio_branch``, ``text_projection``, ``logit_scale_a``), ``launch`` starts
its ``training.main``, and ``options`` and ``epoch`` read its arguments.

Imports nothing of this package but its decoder of audio.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atr_moco_plugin.hosts.laion_clap import decode

_TOKEN_STRIDE = 32


def audio_width(clap: Any) -> int:
    """Width of the audio tokens, which is that of the embedding before the projection."""
    return int(clap.audio_projection[0].in_features)


def audio_states(encoded: dict[str, Tensor]) -> Tensor:
    """``[B, T, width]``: the token states in the output of the audio branch.

    CLAP repeats every state 32 times to stand for frames. Attention to equal copies is attention
    to one of them, so one of each is enough.
    """
    return encoded["fine_grained_embedding"][:, ::_TOKEN_STRIDE]


def steps_an_epoch(data: Any) -> int:
    """Batches of the training set, from the second argument of ``train_one_epoch``."""
    return int(data["train"].dataloader.num_batches)


def pairs_an_epoch(data: Any) -> int:
    """Pairs of the training set in all processes, with those that fill the last batches up."""
    return int(data["train"].dataloader.num_samples)


def set_unregistered(module: nn.Module, name: str, child: nn.Module) -> None:
    """Replace a submodule by another as a plain attribute: the module calls it and has no second
    name for its weights."""
    delattr(module, name)
    object.__setattr__(module, name, child)


def add_methods(module: nn.Module, mixin: type[nn.Module]) -> None:
    """Put a class over the class of one module, so that its weights keep their names."""
    module.__class__ = type(f"{mixin.__name__}Clap", (mixin, type(module)), {})


def their_arguments(arguments: list[str]) -> AbstractContextManager[None]:
    """Have LAION-CLAP's parser, which reads ``sys.argv``, find these arguments."""
    return _replaced(sys, "argv", ["laion_clap.training.main", *arguments])


@contextmanager
def replaced_in_training(
    laion: Any,
    create_model: Callable[..., tuple[nn.Module, Any]],
    train_one_epoch: Callable[..., None],
) -> Iterator[None]:
    """Put other functions into LAION-CLAP's training for a while, and replace

    * its ``ClipLoss`` by one that returns the loss of the model;
    * ``DistributedDataParallel``, in the whole process, by one that works on CPUs and leaves
      evaluation alone;
    * webdataset's decoder of audio, where torchaudio cannot decode.

    Args:
        laion: its module ``training.main``.
        create_model: takes the place of its ``create_model``.
        train_one_epoch: takes the place of its ``train_one_epoch``.
    """
    loop = sys.modules[laion.train_one_epoch.__module__]
    data: Any = sys.modules[laion.get_data.__module__]
    replacements: list[tuple[Any, str, Any]] = [
        (laion, "create_model", create_model),
        (laion, "train_one_epoch", train_one_epoch),
        (loop, "ClipLoss", ModelLoss),
        (nn.parallel, "DistributedDataParallel", DataParallel),
    ]
    if decode.needed():
        replacements.append((data.wds, "torch_audio", decode.soundfile_audio))
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(_replaced(owner, name, value))
        yield


class ModelLoss:
    """In place of LAION's ``ClipLoss``: the model's first output is the loss already."""

    def __init__(self, **options: Any) -> None:
        pass

    def __call__(self, audio_features: Tensor, **outputs: Any) -> Tensor:
        return audio_features


class DataParallel(DistributedDataParallel):
    """DDP as LAION-CLAP calls it.

    LAION-CLAP gives a device id on CPUs too, which DDP refuses there. And it evaluates in the first
    process alone: DDP would wait for the others, to send them the buffers of batch normalisation.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        on_cpu = next(module.parameters()).device.type == "cpu"
        super().__init__(module, device_ids=None if on_cpu else device_ids, **options)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output; gradients are averaged over the processes in training alone."""
        if not self.training:
            return self.module(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
