"""Patch dropout: fewer audio tokens in training, whole time steps and whole rows of mel bands.

Koutini et al., *Efficient Training of Audio Transformers with Patchout* (PaSST), Interspeech 2022,
section 2.2, "structured patchout": the rows and columns of the grid of patches. Li et al., *Scaling
Language-Image Pre-training via Masking* (FLIP), CVPR 2023, do it in a contrastive tower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.freezing import FreezableTower


@dataclass(kw_only=True, frozen=True)
class PatchDropoutConfig(Config):
    """Which share of an audio encoder's tokens its layers do not see in training.

    The defaults leave half of BEATs' tokens. Dropping mel bands as well, or showing the momentum
    tower every token, was worse in equal time (``benchmarks.patch_dropout``).
    """

    time: float = 0.5
    """Share of each clip's time steps (160 ms in BEATs) that are dropped, rounded down to steps; in
    ``[0, 1)``."""

    bands: int = 0
    """Rows of mel bands that are dropped; BEATs has 8."""

    momentum: Literal["whole", "dropped"] = "dropped"
    """What the momentum tower sees: the tokens that the online tower sees, or every one, which
    costs more and keeps noise out of the queue."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "time", least=0, below=1)
        yield from in_range(self, "bands", least=0)
        if self.time == 0 and self.bands == 0:
            yield "`time` and `bands` are both 0, which drops nothing: leave `patch_dropout` out."


def drawn(
    stage: dict[str, Any],
    config: PatchDropoutConfig,
    encoder: Any,
    waveforms: Tensor,
    lengths: Tensor | None,
) -> dict[str, Any]:
    """Draw the tokens that the layers see of a batch, see
    :meth:`~atr_moco_plugin.encoders.beats.BeatsEncoder.draw_patches`.

    Args:
        stage: the encoder's ``features`` of the batch.
        config: the options.
        encoder: the audio encoder.
        waveforms: ``[B, samples]``.
        lengths: ``[B]`` or ``None``.

    Returns:
        The same with the drawn tokens as ``kept``.
    """
    kept = encoder.draw_patches(waveforms, lengths, time=config.time, bands=config.bands)
    return {"features": stage["features"]._replace(kept=kept)}


def seen_by_copy(stage: dict[str, Any], config: PatchDropoutConfig) -> dict[str, Any]:
    """What the online tower is given, as its momentum copy takes it: with ``momentum="whole"`` no
    token of it is dropped.

    Args:
        stage: keyword arguments of the tower: ``features`` or ``lower`` may say which tokens are
            kept.
        config: the options.
    """
    if config.momentum == "dropped":
        return stage
    return {name: x._replace(kept=None) if hasattr(x, "kept") else x for name, x in stage.items()}


def check_trains(tower: FreezableTower) -> None:
    """Refuse patch dropout where no layer trains, so that there is nothing to save.

    Raises:
        InputError: all layers are frozen.
    """
    frozen = tower.frozen
    if frozen == "all" or (frozen != "none" and frozen >= len(tower.encoder.layers)):
        raise InputError(
            f"`model.patch_dropout` drops tokens of the layers that train, but "
            f"`model.audio.freeze` is {frozen}, so that none does: leave one of them out."
        )


def check_encoder(config: PatchDropoutConfig | None, encoder: Any) -> None:
    """Refuse patch dropout for an encoder that cannot do it.

    Args:
        config: the options, or ``None`` for none.
        encoder: the audio encoder.

    Raises:
        InputError: the encoder offers no
            :meth:`~atr_moco_plugin.encoders.beats.BeatsEncoder.draw_patches`, or has no more rows
            than are to be dropped.
    """
    if config is None:
        return
    if not hasattr(encoder, "draw_patches"):
        raise InputError(
            f"`model.patch_dropout` drops patches, but {type(encoder).__name__} has no "
            "`draw_patches(waveforms, lengths, time, bands)`; leave it out or take BEATs."
        )
    if config.bands >= encoder.bands:
        raise InputError(
            f"`model.patch_dropout.bands` is {config.bands}, but {type(encoder).__name__} has "
            f"{encoder.bands} rows of mel bands, of which one must be left: lower it."
        )
