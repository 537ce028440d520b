"""LAION-CLAP's training with another criterion: its own ``main`` with a few names replaced.

``create_model`` gives the model its criterion, ``ClipLoss`` hands on the loss that the model has
computed, ``train_one_epoch`` follows the optimizer, ``DistributedDataParallel`` works on CPUs, and
audio is decoded where torchaudio cannot.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from atr_moco_plugin.hosts.laion_clap import decode
from atr_moco_plugin.hosts.laion_clap.epoch import follow_epoch
from atr_moco_plugin.hosts.laion_clap.model import add_criterion
from atr_moco_plugin.hosts.laion_clap.options import Options, check_theirs, help_text, parse
from atr_moco_plugin.hosts.laion_clap.requirements import (
    check_hub_files,
    find_laion_clap,
    put_on_path,
)
from atr_moco_plugin.hosts.laion_clap.weights import load_clap, numpy_scalars


def train(argv: Sequence[str]) -> int:
    """Run LAION-CLAP's training.

    Args:
        argv: its arguments and this package's.

    Returns:
        The exit code.

    Raises:
        ValueError: when something is missing or does not fit, before anything is trained.
    """
    if {"-h", "--help"} & set(argv):
        print(help_text(argv))
        return 0
    options, theirs = parse(argv)
    put_on_path(find_laion_clap())
    check_hub_files()
    with _replaced(sys, "argv", ["laion_clap.training.main", *theirs]):
        import training.main as laion
        from training.params import parse_args

        args = parse_args()
        check_theirs(args)
        check_hub_files(args.tmodel)
        options.config = _with_seed(options.config, args.seed)
        with criterion_in(laion, options), numpy_scalars():
            # It says -1 after a message of its own, such as that the log folder exists.
            return 1 if laion.main() == -1 else 0


@contextmanager
def criterion_in(laion: Any, options: Options) -> Iterator[None]:
    """Put a criterion into LAION-CLAP's modules for a while.

    Args:
        laion: its module ``training.main``.
        options: the criterion and its options.
    """
    theirs = laion.create_model

    @functools.wraps(theirs)
    def create_model(*args: Any, **kwargs: Any) -> tuple[nn.Module, Any]:
        clap, config = theirs(*args, **kwargs)
        if options.pretrained is not None:
            load_clap(clap, options.pretrained)
        clap = add_criterion(clap, options.criterion_class, options.config, options.head)
        return clap, config

    loop = sys.modules[laion.train_one_epoch.__module__]
    data = sys.modules[laion.get_data.__module__]
    with ExitStack() as stack:
        for owner, name, value in (
            (laion, "create_model", create_model),
            (laion, "train_one_epoch", follow_epoch(laion.train_one_epoch, options.rank_every)),
            (loop, "ClipLoss", ModelLoss),
            (nn.parallel, "DistributedDataParallel", _data_parallel),
            *([(data.wds, "torch_audio", decode.soundfile_audio)] if decode.needed() else []),
        ):
            stack.enter_context(_replaced(owner, name, value))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class ModelLoss:
    """In place of LAION's ``ClipLoss``: the loss is the model's first output already."""

    def __init__(self, **options: Any) -> None:
        pass

    def __call__(self, audio_features: Tensor, **outputs: Any) -> Tensor:
        return audio_features


_DistributedDataParallel = nn.parallel.DistributedDataParallel


def _data_parallel(module: nn.Module, device_ids: Any = None, **options: Any) -> nn.Module:
    """DDP, which refuses the CPU as a device id where LAION-CLAP gives one in any case."""
    on_cpu = next(module.parameters()).device.type == "cpu"
    return _DistributedDataParallel(module, device_ids=None if on_cpu else device_ids, **options)


def _with_seed(config: Any, seed: int) -> Any:
    return replace(config, seed=seed) if hasattr(config, "seed") else config
