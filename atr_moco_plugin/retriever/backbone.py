"""A loaded model with what turns waveforms and sentences into the inputs of its towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.model import RetrievalModel
from atr_moco_plugin.retriever.bundle import BundleConfig

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Backbone:
    """What a retriever computes with.

    Attributes:
        name: what it was loaded from.
        fingerprint: see :func:`~atr_moco_plugin.retriever.bundle.fingerprint`.
        config: as of a bundle; made up for a public ``ClapModel``.
        model: towers and head, in eval mode.
        tokenizer: of transformers.
        feature_extractor: of transformers, where the model needs one.
        folder: where its files are.
        audio_inputs: keyword arguments of the audio tower, of N waveforms on the CPU.
        text_inputs: keyword arguments of the text tower, of ids and mask on the CPU.
        any_padding: whether a clip's embedding is the same however the batch pads it.
    """

    name: str
    fingerprint: str
    config: BundleConfig
    model: RetrievalModel
    tokenizer: Any
    feature_extractor: Any
    folder: Path
    audio_inputs: Callable[[Sequence[Samples]], dict[str, Tensor]]
    text_inputs: Callable[[Tensor, Tensor], dict[str, Tensor]]
    any_padding: bool = True
