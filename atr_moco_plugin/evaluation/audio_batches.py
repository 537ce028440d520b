"""The clips of an evaluation as arguments of the audio tower, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.tensors.nests import map_tensors

AudioInputs = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""From waveforms and lengths to the arguments of the audio tower."""

ClipInputs = Callable[[Sequence[Clip]], Mapping[str, Any]]
"""From a batch of clips to the arguments of the audio tower by their names: tensors or tokens."""


def audio_batches(
    dataset: AudioTextDataset,
    clips: Sequence[Clip],
    device: torch.device,
    *,
    batch_size: int,
    max_seconds: float,
    num_workers: int,
    audio_inputs: AudioInputs | None = None,
    clip_inputs: ClipInputs | None = None,
) -> Iterator[Sequence[Tensor] | Mapping[str, Any]]:
    """Arguments of the audio tower for each batch of clips, in order.

    Args:
        dataset: where the clips come from.
        clips: the clips.
        device: where the tower is.
        batch_size: clips a batch.
        max_seconds: a clip is taken whole up to this length, of a longer one its beginning.
        num_workers: threads that decode audio ahead.
        audio_inputs: makes the arguments of waveforms and lengths; ``None`` where the tower takes
            them as they are.
        clip_inputs: makes the arguments of clips in place of all audio; ``None`` where clips are
            decoded.

    Raises:
        FileNotFoundError, InputError: if a clip cannot be read, in its turn.
    """
    if clip_inputs is not None:
        for first in range(0, len(clips), batch_size):
            inputs = clip_inputs(clips[first : first + batch_size])
            yield map_tensors(lambda x: x.to(device), dict(inputs))
        return
    decoded = iterate_audio(dataset, clips, batch_size, max_seconds, num_workers)
    for waveforms, lengths in decoded:
        if audio_inputs is None:
            yield waveforms.to(device), lengths
        else:
            yield [x.to(device) for x in audio_inputs(waveforms, lengths)]
