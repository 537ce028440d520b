"""Which clips of an evaluation can be decoded, found out before anything depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import map_ahead
from atr_moco_plugin.data.loading.plan import max_samples
from atr_moco_plugin.errors import InputError

_NAMED = 3


def unreadable(
    dataset: AudioTextDataset, clips: Sequence[Clip], max_seconds: float, num_workers: int = 0
) -> dict[str, str]:
    """Decode the part of each clip that an evaluation reads, and keep what goes wrong.

    Headers tell little: a file may break off, or hold NaN, after a sound one. It costs the decoding
    of one validation.

    Args:
        dataset: where clips come from.
        clips: the clips to decode.
        max_seconds: as for :func:`~atr_moco_plugin.data.loading.evaluation_audio.iterate_audio`.
        num_workers: threads that decode; 0 decodes in this one.

    Returns:
        Key to reason of each clip that raises ``InputError`` or ``OSError``, or has a sample that
        is not finite; in the order of the clips.
    """
    samples = max_samples(max_seconds, dataset.sample_rate)

    def reason(clip: Clip) -> str | None:
        try:
            waveform = dataset.load(clip, samples)
        except (InputError, OSError) as error:
            return str(error)
        return None if np.isfinite(waveform).all() else "it has NaN or infinite samples"

    reasons = map_ahead(reason, clips, num_workers, ahead=len(clips))
    return {clip.key: why for clip, why in zip(clips, reasons, strict=True) if why is not None}


def named(reasons: Mapping[str, str]) -> str:
    """The first few clips with their reasons, for a sentence that counts them."""
    first = [f"{key!r} ({' '.join(why.split())})" for key, why in list(reasons.items())[:_NAMED]]
    more = f" and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
    return f"{', '.join(first)}{more}"
