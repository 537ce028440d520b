"""The command line: this package's options; LAION-CLAP's own parser gets all others."""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import Atc
from atr_moco_plugin.criterion.kept_options import kept_options
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.laion_clap.towers import TEXT_MODELS
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.plugins import available, load

_RENAMED = {"momentum": "ema-momentum"}  # theirs is SGD's
_FROM_HOST = ("embed_dim", "seed")  # CLAP's model and --seed give them


@dataclass
class Options:
    """This package's options from the command line.

    Attributes:
        criterion_class: the criterion.
        config: its options.
        head: size of the matching head.
        rank_every: optimizer steps between two records of ``rank.jsonl``.
        pretrained: a CLAP checkpoint to start from, or ``None``.
    """

    criterion_class: type[Atc]
    config: Any
    head: FusionHeadConfig
    rank_every: int
    pretrained: str | None


def parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Split a command line.

    Args:
        argv: arguments after the program name.

    Returns:
        This package's options, and the arguments that are LAION-CLAP's.

    Raises:
        InputError: an unknown criterion, one that learns a distance, or an option that does not
            fit.
    """
    named, _ = _parser(None).parse_known_args(argv)
    criterion_class = load("criteria", named.criterion)
    if hasattr(criterion_class, "distance_factor"):
        raise InputError(
            f"--criterion {named.criterion} learns a distance, and the evaluation, checkpoints and "
            "exports of LAION-CLAP would rank by the plain cosine: train it in another host, or "
            "take another criterion."
        )
    values, theirs = _parser(criterion_class).parse_known_args(argv)
    options = vars(values)
    config = {
        name: _value(options[name], hint)
        for name, hint in _fields(criterion_class).items()
        if options[name] is not None
    }
    if values.rank_every < 1:
        raise InputError(f"--rank-every is {values.rank_every}, expected 1 or more.")
    if values.head_layers is not None and "loss_atm" not in criterion_class.measures:
        warnings.warn(
            f"--head-layers {values.head_layers} does nothing, since --criterion {named.criterion} "
            "has no matching head: leave it out, or take moco_atc_atm.",
            stacklevel=2,
        )
    layers = {} if values.head_layers is None else {"layers": values.head_layers}
    return (
        Options(
            criterion_class=criterion_class,
            config=build_config(criterion_class.config_class, config, "criterion"),
            head=FusionHeadConfig(**layers),
            rank_every=values.rank_every,
            pretrained=values.pretrained,
        ),
        theirs,
    )


def kept_flags(criterion_class: type[Atc], config: Any) -> dict[str, Any]:
    """The options that a training which goes on has to keep, by their flags, of JSON's types.

    Args:
        criterion_class: the criterion.
        config: its options.
    """
    kept, own = kept_options(config), _fields(criterion_class)
    flags = {_flag(name): value for name, value in kept.items() if name in own}
    return {"the criterion": criterion_class.__name__, **flags}


def help_text(argv: Sequence[str]) -> str:
    """The help on this package's options, with the options of the criterion that ``argv`` names."""
    named, _ = _parser(None).parse_known_args(argv)
    return _parser(load("criteria", named.criterion)).format_help()


def check_theirs(args: argparse.Namespace, config: Any) -> None:
    """Refuse arguments that the criterion would silently change or cannot work with.

    Args:
        args: the result of LAION-CLAP's parser.
        config: options of the criterion.

    Raises:
        InputError: with the name of the argument.
    """
    for name, reason in (
        ("clap_mlploss", "is a loss of its own; leave it out, --criterion is the loss"),
        ("kappa", "weights a loss that --criterion replaces; leave it out"),
        ("local_loss", "is of the loss that --criterion replaces; leave it out"),
        ("gather_with_grad", "is of the loss that --criterion replaces; leave it out"),
        ("horovod", "is not supported; start several processes with torchrun"),
        ("torchscript", "compiles the model without the criterion; leave it out"),
        ("trace", "compiles the model without the criterion; leave it out"),
    ):
        if getattr(args, name):
            raise InputError(f"--{name.replace('_', '-')} {reason}.")
    if getattr(args, "ddp_static_graph", False) and not getattr(config, "matches_always", True):
        raise InputError(
            "--ddp-static-graph does not go with a matching loss that is not in every step: leave "
            "it out, or set --atm-start 0 and --atm-every 1."
        )
    if getattr(config, "teachers", None):
        for name, wrong in (
            ("remotedata", args.remotedata),
            ("dataset_type", args.dataset_type != "webdataset"),
            ("text_augment_selection", args.text_augment_selection not in (None, "none")),
        ):
            if wrong:
                raise InputError(
                    f"--{name.replace('_', '-')} {getattr(args, name)} does not go with "
                    "--teachers, which are checked against local tars (--dataset-type webdataset) "
                    "and the captions under `text`: leave out one of the two."
                )
    if args.precision == "fp16":
        raise InputError("--precision fp16 leaves the weights in half precision; take amp or fp32.")
    if args.tmodel not in TEXT_MODELS:
        raise InputError(
            f"--tmodel is {args.tmodel}, but the criterion needs token states of "
            f"{' or '.join(TEXT_MODELS)}."
        )


def _parser(criterion_class: type[Atc] | None) -> argparse.ArgumentParser:
    parser = OnceParser(
        prog="python -m atr_moco_plugin.hosts.laion_clap",
        description="Train LAION-CLAP with a criterion of atr_moco_plugin. All other arguments "
        "are those of laion_clap.training.main. `export CHECKPOINT OUT` writes plain CLAP weights.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--criterion",
        default="moco_atc_atm",
        help=f"one of {', '.join(available('criteria'))} (default: %(default)s)",
    )
    parser.add_argument(
        "--pretrained", metavar="CHECKPOINT", help="a CLAP checkpoint to start from"
    )
    parser.add_argument(
        "--head-layers",
        type=int,
        help=f"fusion layers of the matching head (default: {FusionHeadConfig.layers})",
    )
    parser.add_argument(
        "--rank-every",
        type=int,
        default=100,
        help="optimizer steps between two records of rank.jsonl (default: %(default)s)",
    )
    if criterion_class is not None:
        group = parser.add_argument_group(f"options of {criterion_class.__name__}")
        defaults = {f.name: f.default for f in dataclasses.fields(criterion_class.config_class)}
        for name, hint in _fields(criterion_class).items():
            shown = "none; several with commas" if _is_list(hint) else defaults[name]
            group.add_argument(_flag(name), dest=name, help=f"(default: {shown})")
    return parser


def _flag(name: str) -> str:
    return f"--{_RENAMED.get(name, name).replace('_', '-')}"


def _fields(criterion_class: type[Atc]) -> dict[str, Any]:
    """Options of a criterion that can be set, with their types."""
    hints = get_type_hints(criterion_class.config_class)
    # A temperature that is learned starts from CLAP's.
    learns = getattr(criterion_class, "learns_temperature", True)
    given = (*_FROM_HOST, "temperature") if learns else _FROM_HOST
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(criterion_class.config_class)
        if field.name not in given
    }


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is list


def _value(text: str, hint: Any) -> Any:
    """A number where it reads as one, otherwise the text itself; a list where there are commas."""
    if _is_list(hint):
        return text.split(",")
    try:
        value = json.loads(text)
    except ValueError:
        return text
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if hint is float and whole else value
