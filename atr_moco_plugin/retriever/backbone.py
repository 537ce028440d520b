"""A loaded model with what turns waveforms and sentences into the inputs of its towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.learned_distance import plain_factor
from atr_moco_plugin.model import RetrievalModel
from atr_moco_plugin.retriever.bundle import CONFIG, WEIGHTS, Bundle, BundleConfig

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Backbone:
    """What a retriever computes with.

    Attributes:
        name: what it was loaded from.
        fingerprint: see :func:`~atr_moco_plugin.retriever.identity.model_fingerprint`.
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


def min_seconds(model: nn.Module) -> float:
    """Length of the shortest sound that the audio encoder of a model takes; 0 where it does not
    say."""
    audio: Any = model.audio
    return float(getattr(audio.encoder, "min_seconds", 0.0))


def load_state(model: RetrievalModel, bundle: Bundle) -> None:
    """Give a model the weights of a bundle, freeze it and put it into eval mode.

    Raises:
        InputError: if they do not fit each other.
    """
    if bundle.config.distance is not None:
        model.rank_by_distance(plain_factor(bundle.config.distance, model.embed_dim))
    file, expected = bundle.folder / WEIGHTS, model.state_dict()
    names = sorted(expected.keys() ^ bundle.state.keys())
    if names:
        raise InputError(
            f"{file} does not fit the model of {CONFIG}: {names[0]} is only in one of the two "
            f"({len(names)} such names); export the bundle again" + _versions(bundle)
        )
    for key, tensor in expected.items():
        if tensor.shape != bundle.state[key].shape:
            raise InputError(
                f"{file} has {key} of shape {list(bundle.state[key].shape)}, but {CONFIG} asks for "
                f"{list(tensor.shape)}; export the bundle again" + _versions(bundle)
            )
    model.load_state_dict(bundle.state)
    model.requires_grad_(False).eval()


def _versions(bundle: Bundle) -> str:
    packages = sorted(set(bundle.config.packages.values()))
    return f", or install what it was made with: {', '.join(packages)}." if packages else "."
