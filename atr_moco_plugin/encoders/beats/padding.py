"""How many tokens of a padded clip are valid.

A token covers ``patch`` frames by ``patch`` mel bins; tokens follow each other in time, the bands
of one time step adjacent. Valid tokens are always the first ones, so a count describes the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from atr_moco_plugin.encoders.beats.config import PaddingMask
from atr_moco_plugin.encoders.beats.fbank import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    MEL_BINS,
    SAMPLE_RATE,
)
from atr_moco_plugin.errors import InputError


def sample_counts(waveforms: Tensor, lengths: Tensor | None) -> list[int]:
    """Samples of each clip of a padded batch, after checking the shapes and types of both.

    Args:
        waveforms: ``[B, samples]``.
        lengths: ``[B]`` integer, or ``None`` where no clip is padded.

    Raises:
        ValueError: If an argument has another shape or type.
    """
    if waveforms.dim() != 2 or waveforms.size(0) == 0:
        raise ValueError(
            "waveforms must be [B, samples] with at least one clip, got shape "
            f"{list(waveforms.shape)}."
        )
    if lengths is None:
        return [waveforms.size(1)] * waveforms.size(0)
    integral = not (lengths.is_floating_point() or lengths.is_complex())
    if lengths.shape != waveforms.shape[:1] or not integral:
        raise ValueError(
            f"lengths must be [{waveforms.size(0)}] integer samples, got shape "
            f"{list(lengths.shape)} {lengths.dtype}."
        )
    counts: list[int] = lengths.tolist()
    return counts


def samples_for(steps: int, patch: int) -> int:
    """The fewest samples that make ``steps`` time steps of ``patch`` frames each."""
    return FRAME_LENGTH + FRAME_SHIFT * (steps * patch - 1)


def tokens_of(samples: int, patch: int) -> int:
    """Tokens of a clip of ``samples`` samples alone; it must have at least one frame."""
    return MEL_BINS // patch * (_frames_of(samples) // patch)


def valid_tokens(
    lengths: Sequence[int], samples: int, patch: int, padding_mask: PaddingMask
) -> list[int]:
    """Number of valid tokens of each clip.

    Args:
        lengths: Valid samples of each clip.
        samples: Samples of the padded batch.
        patch: Frames and mel bins of a token.
        padding_mask: ``exact`` gives the tokens that each clip has alone. ``official`` gives the
            tokens that the published code leaves unmasked: it cuts the batch into as many equal
            chunks of samples as there are frames, then into chunks of frames as if a token had few
            of them.

    Raises:
        InputError: If a clip is too short for one token.
        ValueError: If a clip is longer than the batch.
    """
    shortest = samples_for(1, patch)
    for index, length in enumerate(lengths):
        if length > samples:
            raise ValueError(
                f"lengths[{index}] is {length}, but waveforms have {samples} samples; "
                "a length is the clip's number of samples before padding."
            )
        if length < shortest:
            raise InputError(
                f"Clip {index} has {length} samples, below the {shortest} "
                f"({shortest / SAMPLE_RATE:.3f} s) that one BEATs token needs; drop it or pad it "
                "with zeros and count them in its length."
            )
    if padding_mask == "exact":
        return [tokens_of(length, patch) for length in lengths]
    frames, tokens = _frames_of(samples), tokens_of(samples, patch)
    # Token i is masked where all its samples are padding, so where i * chunk >= length.
    chunk = (frames // tokens) * (samples // frames)
    return [min(tokens, -(-length // chunk)) for length in lengths]


def _frames_of(samples: int) -> int:
    return 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT
