"""What is compared: criteria and their options, the most wanted first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.plugins import load

CHUNKS = 4
"""Times the pairs of the others in a batch that is made in chunks."""


@dataclass(frozen=True)
class Variant:
    """A criterion with options.

    Attributes:
        name: of its rows.
        criterion: its entry point.
        options: others than those of :func:`criterion_options`.
        rate_of: the variant whose learning rate it takes; None has one searched.
        chunks: batches of :data:`CHUNKS` times the pairs, in chunks of as many as the others have
            at once.
        head_lr_scale: of the optimizer: a factor on the rate for the matching head.
        teacher: the variant whose run of the same seed it goes on from, with that run as its
            teacher; its time comes on top.
        tier: 0 are wanted first.
    """

    name: str
    criterion: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rate_of: str | None = None
    chunks: bool = False
    head_lr_scale: float = 1.0
    teacher: str | None = None
    tier: int = 1

    def pairs(self, batch: int) -> int:
        """In a batch of the variant where the others have ``batch``."""
        return CHUNKS * batch if self.chunks else batch

    @property
    def kind(self) -> Any:
        """The criterion's class.

        Raises:
            InputError: where there is none.
        """
        return load("criteria", self.criterion)


_MATCHING = "moco_atc_atm"
_QUEUE = "moco_atc"
_ONLINE_KEYS = {"keys": "online", "columns": "online", "alpha": 0.0}

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("atc", "atc", {"positives": "pair"}, tier=0),
        Variant("moco_atc", _QUEUE, tier=0),
        # Until the matching loss begins it is `moco_atc`, most of a search long.
        Variant("moco_atc_atm", _MATCHING, rate_of=_QUEUE, tier=0),
        Variant("siglip", "siglip"),
        Variant("dcl", "dcl"),
        Variant("sogclr", "sogclr"),
        Variant("m_ltm", "m_ltm"),
        Variant("m_ltm_full", "m_ltm_full"),
        Variant("atc, clip_or_caption", "atc", rate_of="atc"),
        Variant("atc, chunks", "atc", {"positives": "pair"}, rate_of="atc", chunks=True),
        Variant("moco_atc, columns both", _QUEUE, {"columns": "both"}, _QUEUE, tier=2),
        Variant(
            "moco_atc_atm, columns both, every 2",
            _MATCHING,
            {"columns": "both", "atm_every": 2},
            _QUEUE,
            tier=2,
        ),
        Variant(
            "moco_atc_atm, columns both, every 2, head 10",
            _MATCHING,
            {"columns": "both", "atm_every": 2},
            _QUEUE,
            head_lr_scale=10.0,
            tier=2,
        ),
        Variant("moco_atc, columns online", _QUEUE, {"columns": "online"}, _QUEUE, tier=2),
        Variant("moco_atc, keys online", _QUEUE, _ONLINE_KEYS, _QUEUE, tier=2),
        Variant("moco_atc, alpha 0", _QUEUE, {"alpha": 0.0}, _QUEUE, tier=2),
        Variant("moco_atc, queue 0", _QUEUE, {"queue_size": 0}, _QUEUE, tier=2),
        Variant(
            "moco_atc, queue 0, alpha 0", _QUEUE, {"queue_size": 0, "alpha": 0.0}, _QUEUE, tier=2
        ),
        Variant("moco_atc_atm, start 0", _MATCHING, {"atm_start": 0}, _QUEUE, tier=2),
        Variant("moco_atc_atm, every 2", _MATCHING, {"atm_every": 2}, _QUEUE, tier=2),
        Variant(
            "moco_atc_atm, every 2, head 10",
            _MATCHING,
            {"atm_every": 2},
            _QUEUE,
            head_lr_scale=10.0,
            tier=2,
        ),
        Variant("moco_atc_atm, one pair", _MATCHING, {"atm_pairs": "one"}, _QUEUE, tier=2),
        Variant("moco_atc_atm, one side", _MATCHING, {"atm_pairs": "audio"}, _QUEUE, tier=2),
        Variant(
            "moco_atc_atm, every 2, one pair",
            _MATCHING,
            {"atm_every": 2, "atm_pairs": "one"},
            _QUEUE,
            tier=2,
        ),
        Variant(
            "atc, own teacher", "atc", {"positives": "pair"}, rate_of="atc", teacher="atc", tier=3
        ),
        Variant("moco_atc, own teacher", _QUEUE, {}, _QUEUE, teacher=_QUEUE, tier=3),
    )
}

QUEUE_SIZE, ALPHA_WARMUP = 512, 400

TEMPERATURE_MIN = 0.05
"""Of a learned one. Otherwise it falls with the loss on known pairs, with a queue to 0.01."""


def criterion_options(variant: Variant, momentum: float) -> dict[str, Any]:
    """All options that are no defaults: those that all share, as far as the criterion has them,
    below the variant's own. Items of one clip or caption are positives for all but ``atc``.

    Args:
        variant: what is compared.
        momentum: of the moving averages, which goes with the batch.

    Raises:
        InputError: where there is no such criterion, or it has no such option.
    """
    known = {x.name for x in fields(variant.kind.config_class)}
    shared = {
        "positives": "clip_or_caption",
        "queue_size": QUEUE_SIZE,
        "queue_warmup_steps": "auto",
        "momentum": momentum,
        "alpha_warmup_steps": ALPHA_WARMUP,
        "temperature_min": TEMPERATURE_MIN,
    }
    options = {name: value for name, value in shared.items() if name in known}
    if variant.options.get("keys") == "online":
        # Without momentum copies and soft targets there is nothing to set for them.
        options = {x: y for x, y in options.items() if x not in ("momentum", "alpha_warmup_steps")}
    options |= variant.options
    build_config(variant.kind.config_class, options, "criterion.config")
    return options


def why_not_there(variant: Variant, momentum: float) -> str | None:
    """Why a variant cannot run with the code that is installed; None where it can."""
    try:
        criterion_options(variant, momentum)
        if variant.teacher is not None:
            build_config(variant.kind.config_class, {"teachers": ["a file"]}, "criterion.config")
    except InputError as ex:
        return str(ex)
    return None
