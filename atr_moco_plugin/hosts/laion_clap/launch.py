"""LAION-CLAP's training with another criterion: its own ``main`` with a few names replaced.

``create_model`` gives the model its criterion, ``ClipLoss`` hands on the loss that the model has
computed, ``train_one_epoch`` follows the optimizer, ``DistributedDataParallel`` works on CPUs and
leaves evaluation alone, and audio is decoded where torchaudio cannot.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap import decode
from atr_moco_plugin.hosts.laion_clap.epoch import follow_epoch
from atr_moco_plugin.hosts.laion_clap.model import add_criterion
from atr_moco_plugin.hosts.laion_clap.options import Options, check_theirs, parse
from atr_moco_plugin.hosts.laion_clap.requirements import (
    check_hub_files,
    find_laion_clap,
    put_on_path,
)
from atr_moco_plugin.hosts.laion_clap.weights import (
    has_criterion,
    load_clap,
    numpy_scalars,
    read_clap,
)


@dataclass
class Launch:
    """A training that has everything it needs.

    Attributes:
        options: this package's options.
        theirs: LAION-CLAP's arguments.
        pretrained: CLAP weights to start from, or ``None``.
    """

    options: Options
    theirs: list[str]
    pretrained: dict[str, Tensor] | None

    def run(self) -> int:
        """Run LAION-CLAP's ``main``; returns the exit code."""
        import training.main as laion

        with (
            _their_arguments(self.theirs),
            criterion_in(laion, self.options, self.pretrained),
            numpy_scalars(),
        ):
            # It says -1 after a message of its own, such as that the log folder exists.
            return 1 if laion.main() == -1 else 0


def prepare(argv: Sequence[str]) -> Launch:
    """Check everything that can be checked before LAION-CLAP's ``main`` runs.

    Args:
        argv: its arguments and this package's.

    Raises:
        ValueError: when something is missing or does not fit, with what to do.
    """
    options, theirs = parse(argv)
    put_on_path(find_laion_clap())
    check_hub_files()
    from training.params import parse_args

    with _their_arguments(theirs):
        args = parse_args()
    check_theirs(args)
    check_hub_files(args.tmodel)
    if args.resume is not None and not (os.path.isfile(args.resume) and has_criterion(args.resume)):
        raise InputError(
            f"--resume {args.resume} is not a checkpoint of a training with this launcher; start "
            "from other CLAP weights with --pretrained."
        )
    if hasattr(options.config, "seed"):
        options.config = replace(options.config, seed=args.seed)
    pretrained = None if options.pretrained is None else read_clap(options.pretrained)
    return Launch(options, theirs, pretrained)


@contextmanager
def criterion_in(
    laion: Any, options: Options, pretrained: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """Put a criterion into LAION-CLAP's modules for a while.

    Args:
        laion: its module ``training.main``.
        options: the criterion and its options.
        pretrained: CLAP weights to start from.
    """
    loop = sys.modules[laion.train_one_epoch.__module__]
    data = sys.modules[laion.get_data.__module__]
    with ExitStack() as stack:
        for owner, name, value in (
            (laion, "create_model", _with_criterion(laion.create_model, options, pretrained)),
            (laion, "train_one_epoch", follow_epoch(laion.train_one_epoch, options.rank_every)),
            (loop, "ClipLoss", ModelLoss),
            (nn.parallel, "DistributedDataParallel", DataParallel),
            *([(data.wds, "torch_audio", decode.soundfile_audio)] if decode.needed() else []),
        ):
            stack.enter_context(_replaced(owner, name, value))
        yield


class ModelLoss:
    """In place of LAION's ``ClipLoss``: the loss is the model's first output already."""

    def __init__(self, **options: Any) -> None:
        pass

    def __call__(self, audio_features: Tensor, **outputs: Any) -> Tensor:
        return audio_features


class DataParallel(DistributedDataParallel):
    """DDP as LAION-CLAP calls it.

    It gives a device id on CPUs too, which DDP refuses there. And it evaluates on the first rank
    alone: DDP would wait for the others there, to send them the buffers of batch normalisation.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        on_cpu = next(module.parameters()).device.type == "cpu"
        super().__init__(module, device_ids=None if on_cpu else device_ids, **options)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module returns; gradients are averaged over the ranks in training alone."""
        if not self.training:
            return self.module(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)


def _with_criterion(
    theirs: Callable[..., Any], options: Options, pretrained: dict[str, Tensor] | None
) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def create_model(*args: Any, **kwargs: Any) -> tuple[nn.Module, Any]:
        clap, config = theirs(*args, **kwargs)
        if pretrained is not None:
            load_clap(clap, pretrained)
        clap = add_criterion(clap, options.criterion_class, options.config, options.head)
        return clap, config

    return create_model


def _their_arguments(arguments: list[str]) -> Any:
    return _replaced(sys, "argv", ["laion_clap.training.main", *arguments])


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
