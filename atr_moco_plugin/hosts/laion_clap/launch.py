"""LAION-CLAP's training with another criterion: its own ``main`` with a few names replaced.

``create_model`` gives the model its criterion, ``train_one_epoch`` follows the optimizer; the
others are in :mod:`~atr_moco_plugin.hosts.laion_clap.internals`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.epoch import follow_epoch
from atr_moco_plugin.hosts.laion_clap.internals import replaced_in_training, their_arguments
from atr_moco_plugin.hosts.laion_clap.model import add_criterion
from atr_moco_plugin.hosts.laion_clap.options import check_theirs, parse
from atr_moco_plugin.hosts.laion_clap.requirements import (
    check_hub_files,
    find_laion_clap,
    put_on_path,
)
from atr_moco_plugin.hosts.laion_clap.resume import check_resumed
from atr_moco_plugin.hosts.laion_clap.weights import has_criterion, load_clap, read_clap
from atr_moco_plugin.io.checkpoints import allow_numpy


def train(argv: Sequence[str]) -> int:
    """Check everything that can be checked early, then run LAION-CLAP's ``main``.

    Args:
        argv: its arguments and this package's.

    Returns:
        The exit code.

    Raises:
        InputError: something is missing or does not fit, with what to do.
    """
    options, theirs = parse(argv)
    put_on_path(find_laion_clap())
    check_hub_files()
    with their_arguments(theirs):
        args = import_module("training.params").parse_args()
    check_theirs(args, options.config)
    check_hub_files(args.tmodel)
    if args.resume is not None and not (os.path.isfile(args.resume) and has_criterion(args.resume)):
        raise InputError(
            f"--resume {args.resume} is not a checkpoint of a training with this launcher; start "
            "from other CLAP weights with --pretrained."
        )
    if args.resume is not None:
        check_resumed(Path(args.resume), options.criterion_class, options.config)
    if hasattr(options.config, "seed"):
        options.config = replace(options.config, seed=args.seed)
    pretrained = None if options.pretrained is None else read_clap(options.pretrained)
    laion: Any = import_module("training.main")
    original = laion.create_model

    @functools.wraps(original)
    def create_model(*args: Any, **kwargs: Any) -> tuple[nn.Module, Any]:
        clap, config = original(*args, **kwargs)
        if pretrained is not None:
            load_clap(clap, pretrained)
        add_criterion(clap, options.criterion_class, options.config, options.head)
        return clap, config

    train_one_epoch = follow_epoch(laion.train_one_epoch, options.rank_every)
    with (
        their_arguments(theirs),
        replaced_in_training(laion, create_model, train_one_epoch),
        # Its schedule leaves the learning rate in the optimizer as a number of NumPy, so that its
        # own --resume fails from torch 2.6 on.
        allow_numpy(),
    ):
        # It says -1 after a message of its own, such as that the log folder exists.
        return 1 if laion.main() == -1 else 0
