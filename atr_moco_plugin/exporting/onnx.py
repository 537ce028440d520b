"""A retriever's towers as ONNX files, each compared with the model by onnxruntime."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting.onnx_readme import readme
from atr_moco_plugin.exporting.onnx_tower import Tower, quiet, write_tower
from atr_moco_plugin.exporting.traced import (
    ClapAudio,
    FeatureTower,
    TextEmbedding,
    WaveformTower,
    tensor_fields,
)
from atr_moco_plugin.io.atomic import new_folder
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.backbone import Backbone, min_seconds
from atr_moco_plugin.retriever.bundle import save_part
from atr_moco_plugin.retriever.loaded_model import same_again
from atr_moco_plugin.text.tokenizer import tokenize

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_LENGTHS = (0.6, 1.0, 0.35)  # of a window, compared
_BATCHES = ((1.0, 0.8, 0.55), (1.0,), (1.0, 0.9))  # lengths in a batch, of its longest
_WORDS = ((5, 2), (1,), (40, 12, 3))  # in the sentences of a batch


def export_onnx(retriever: AudioTextRetriever, folder: str | Path) -> None:
    """Write ``audio.onnx``, ``text.onnx``, ``tokenizer/``, ``config.json`` and a ``README.md``.

    The audio file takes waveforms, or where its front-end cannot be traced the features that the
    encoder takes; ``config.json`` says which. Each file is compared with the model by onnxruntime,
    at three lengths and batch sizes with padding.

    Args:
        retriever: of a bundle or a ``ClapModel``.
        folder: not there yet, or empty.

    Raises:
        InputError: if a package is missing, a tower cannot be traced, or its file gives other
            embeddings.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX files need {', '.join(missing)}: pip install 'atr-moco-plugin[onnx]'"
        )
    backbone = same_again(retriever)
    with new_folder(folder) as new, torch.no_grad(), quiet():
        files = {
            "audio": _first_that_works(backbone, "audio", _audio_towers(backbone), new),
            "text": _first_that_works(backbone, "text", [lambda: _text_tower(backbone)], new),
        }
        save_part(backbone.tokenizer, new / "tokenizer")
        if backbone.feature_extractor is not None:
            save_part(backbone.feature_extractor, new / "feature_extractor")
        config = {
            **files,
            "sample_rate": retriever.sample_rate,
            "window_seconds": retriever.window_seconds,
            "hop_seconds": retriever.hop_seconds,
            "max_tokens": backbone.config.max_tokens,
            "pad_id": backbone.tokenizer.pad_token_id,
            "pads_clips": backbone.any_padding,
            "embed_dim": retriever.embed_dim,
            "temperature": retriever.temperature,
            "distance": backbone.config.distance,
            "fingerprint": retriever.fingerprint,
            "versions": {x: version(x) for x in ("atr-moco-plugin", "torch", *_NEEDED)},
        }
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (new / "README.md").write_text(readme(config), encoding="utf-8")


def _audio_towers(backbone: Backbone) -> list[Callable[[], Tower]]:
    """Ways to trace the audio tower, the best first."""
    tower = backbone.model.audio
    if backbone.config.kind == "clap":
        return [lambda: _clap_tower(backbone)]
    ways: list[Callable[[], Tower]] = [lambda: _waveform_tower(backbone)]
    if hasattr(tower.encoder, "features") and not hasattr(tower.encoder, "traceable"):
        ways.append(lambda: _feature_tower(backbone))
    return ways


def _waveform_tower(backbone: Backbone) -> Tower:
    batches = _audio_batches(backbone)
    return _tower(backbone, "audio", WaveformTower(backbone.model.audio), batches, batches)


def _feature_tower(backbone: Backbone) -> Tower:
    batches: Sequence[dict[str, Any]] = _audio_batches(backbone)
    features = [backbone.model.audio.prepare(**batch)["features"] for batch in batches]
    fields = tensor_fields(features[0])
    tensors = [{name: getattr(x, name) for name in fields} for x in features]
    module = FeatureTower(backbone.model.audio, features[0])
    return _tower(backbone, "audio", module, tensors, batches)


def _clap_tower(backbone: Backbone) -> Tower:
    batches = _audio_batches(backbone)
    tower = copy.deepcopy(backbone.model.audio)
    fuses = any(getattr(x, "enable_fusion", False) for x in tower.modules())
    for module in tower.modules():
        if getattr(module, "enable_fusion", False):
            setattr(module, "enable_fusion", False)  # noqa: B010  # no annotation allows it
    features = [{"input_features": batch["input_features"]} for batch in batches]
    return _tower(backbone, "audio", ClapAudio(tower, fuses), features, batches)


def _text_tower(backbone: Backbone) -> Tower:
    tokens = _token_batches(backbone)
    given = [{"input_ids": ids, "attention_mask": mask.long()} for ids, mask in tokens]
    inputs = [backbone.text_inputs(*batch) for batch in tokens]
    module = TextEmbedding(backbone.model.text, backbone.text_inputs)
    return _tower(backbone, "text", module, given, inputs)


def _tower(
    backbone: Backbone,
    name: str,
    module: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    inputs: Sequence[Mapping[str, Any]],
) -> Tower:
    """The tower with what the model itself makes of ``inputs``."""
    model = getattr(backbone.model, name)
    return Tower(name, module.eval(), batches, [model(**x)[0] for x in inputs])


def _audio_batches(backbone: Backbone) -> list[dict[str, Tensor]]:
    """Noise of several lengths and batch sizes, as the audio tower takes it."""
    rate = backbone.config.sample_rate
    window, least = backbone.config.window_seconds * rate, round(min_seconds(backbone.model) * rate)
    noise = np.random.default_rng(0)
    found = []
    for length, batch in zip(_LENGTHS, _BATCHES, strict=True):
        shares = batch if backbone.any_padding else [batch[0]] * len(batch)
        sizes = [max(least, round(window * length * share)) for share in shares]
        waveforms = [(0.1 * noise.standard_normal(n)).astype(np.float32) for n in sizes]
        found.append(backbone.audio_inputs(waveforms))
    return found


def _token_batches(backbone: Backbone) -> list[tuple[Tensor, Tensor]]:
    """Sentences of the tokenizer's own words, of several lengths and batch sizes."""
    special = set(backbone.tokenizer.all_special_tokens)
    vocabulary = sorted(backbone.tokenizer.get_vocab())
    words = [x for x in vocabulary if x.isalpha() and x not in special][:200] or vocabulary[:1]
    found = []
    for batch in _WORDS:
        sentences = [" ".join(words[(7 * i) % len(words)] for i in range(n)) for n in batch]
        found.append(tokenize(backbone.tokenizer, sentences, backbone.config.max_tokens))
    return found


def _first_that_works(
    backbone: Backbone, name: str, ways: Sequence[Callable[[], Tower]], folder: Path
) -> dict[str, Any]:
    """Write a tower's file in the first way that a trace and onnxruntime get right.

    Returns:
        What ``config.json`` says of the file.
    """
    problem = ""
    cause: Exception | None = None
    for way in ways:
        try:
            return write_tower(way(), folder / f"{name}.onnx")
        except Exception as ex:  # a tracer raises anything
            problem, cause = _reason(ex), ex
    raise InputError(
        f"The {name} encoder {_named(backbone, name)} cannot be written as ONNX ({problem})."
    ) from cause


def _named(backbone: Backbone, part: str) -> str:
    """Name and package of an encoder, for a message."""
    name = backbone.config.model.get(part, {}).get("name", "of ClapModel")
    package = backbone.config.packages.get(f"{part}_encoders/{name}")
    return f"{name!r}" + (f" of {package}" if package else "")


def _reason(ex: Exception) -> str:
    """The innermost of an error that tracers wrap several times, in a line."""
    while isinstance(ex.__cause__, Exception):
        ex = ex.__cause__
    line = next(iter(str(ex).splitlines()), "")[:200]
    return line if isinstance(ex, InputError) else f"{type(ex).__name__}: {line}"
