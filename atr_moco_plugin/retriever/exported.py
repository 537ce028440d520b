"""What a host makes of a training run, and what a user may say about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor, nn

from atr_moco_plugin import __version__
from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.learned_distance import distance_kind
from atr_moco_plugin.model import RetrievalModel
from atr_moco_plugin.retriever.bundle import BundleConfig, write_bundle
from atr_moco_plugin.retriever.card import model_card
from atr_moco_plugin.retriever.kept_card import card_record
from atr_moco_plugin.retriever.loading import check_window

SCORE: Final = "log_odds + cosine / temperature"
"""``score`` of a bundle whose matching head was trained."""


@dataclass(kw_only=True)
class ExportOptions(Config):
    """What a run does not say, or a user wants otherwise. None leaves it to the run.

    Raises:
        InputError: for a length that is none, or a hop that is longer than the window.
    """

    checkpoint: str | None = None
    """Which checkpoint of a run's folder: ``best``, ``last``, or its name."""

    window_seconds: float | None = None
    """Longest sound that is embedded at once."""

    hop_seconds: float | None = None
    """From the start of a window to the start of the next; None takes the window's length."""

    tokenizer: str | None = None
    """A folder or a name on the Hugging Face Hub, for runs that keep no tokenizer."""

    figures: Path | None = None
    """A ``retrieval.json`` for the model card."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "window_seconds", "hop_seconds", above=0)

    def windows(self, seconds: float, *, most: float | None = None) -> tuple[float, float]:
        """``window_seconds`` and ``hop_seconds`` of a bundle.

        Args:
            seconds: the window that the run evaluated with.
            most: the longest that the model takes, where it has such a length.

        Raises:
            InputError: for a window or hop that is too long.
        """
        window = self.window_seconds or seconds
        if most is not None and window > most:
            raise InputError(
                f"--window is {window:g} s, but the model takes at most {most:g} s at once: leave "
                "it out, longer recordings are cut into windows."
            )
        hop = self.hop_seconds or window
        if hop > window:
            raise InputError(
                f"--hop is {hop:g} s, but a window is {window:g} s, so that sounds between two "
                "windows would be passed over: give at most the window."
            )
        return float(window), float(hop)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Everything that a bundle is written from.

    Attributes:
        config: of the bundle.
        model: towers and head.
        tokenizer: a tokenizer of transformers, or a folder that has one.
        feature_extractor: of transformers, or a folder that has one; None where waveforms go into
            the model.
        figures: retrieval figures of each split, as ``retrieval.json`` has them under ``splits``,
            for the model card.
        factor: of the distance that the criterion has learned, by which the bundle's towers are to
            rank: :mod:`atr_moco_plugin.learned_distance`.
    """

    config: BundleConfig
    model: RetrievalModel
    tokenizer: Any
    feature_extractor: Any = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    factor: Tensor | None = None

    def write(self, folder: Path) -> None:
        """Write the bundle with its model card, see
        :func:`~atr_moco_plugin.retriever.bundle.write_bundle`.

        Raises:
            InputError: for weights that are not finite, windows too short for the model, or a
                folder that holds something else.
        """
        distance = None
        if self.factor is not None:
            distance = distance_kind(self.factor)
            self.model.rank_by_distance(self.factor)
        check_finite(self.model)
        check_window(self.config, self.model, "This bundle")
        origin = {**self.config.origin, "versions": versions()}
        config = replace(self.config, origin=origin, distance=distance)
        card = model_card(config, title=folder.resolve().name, figures=self.figures)
        config = replace(config, origin=origin | card_record(card))
        write_bundle(folder, config, self.model, self.tokenizer, self.feature_extractor, card)


def check_finite(model: nn.Module) -> None:
    """Refuse a model that embeds everything as NaN.

    Raises:
        InputError: naming the first weight that is NaN or infinite.
    """
    for name, x in model.state_dict().items():
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise InputError(
                f"The weight {name} of this checkpoint is NaN or infinite, so that it cannot embed "
                "anything: choose an earlier one with --checkpoint."
            )


def versions() -> dict[str, str]:
    """Versions of the packages that write a bundle."""
    return {
        "atr-moco-plugin": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
