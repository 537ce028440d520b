"""A ``ClapModel`` of transformers, public or in a bundle, with a matching head where it has one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.model.clap import (
    ClapAudioTower,
    ClapTextTower,
    TowerPair,
    clap_temperature,
    clip_features,
)
from atr_moco_plugin.retriever.backbone import Backbone, Samples, load_state
from atr_moco_plugin.retriever.bundle import (
    CONFIG,
    FEATURE_EXTRACTOR,
    TOKENIZER,
    Bundle,
    BundleConfig,
    bundle_fingerprint,
)
from atr_moco_plugin.retriever.identity import digests, model_fingerprint
from atr_moco_plugin.text.checks import check_tokenizer, text_positions
from atr_moco_plugin.text.tokenizer import load_tokenizer

_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files of a public model, beside ``config.json`` and the weights, that its embeddings depend
on."""


def clap_options(
    clap: ClapConfig, head: FusionHeadConfig | None, mean_frequencies: bool = False
) -> dict[str, Any]:
    """``model`` of a bundle of the kind ``clap``, see
    :class:`~atr_moco_plugin.retriever.BundleConfig`."""
    content = _of_the_model(json.loads(clap.to_json_string(use_diff=False)))
    options = {"clap": content, "head": None if head is None else asdict(head)}
    return {**options, "mean_frequencies": True} if mean_frequencies else options


def _of_the_model(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration without where it was read and by which version."""
    return {
        key: _of_the_model(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if key not in ("_name_or_path", "transformers_version")
    }


def clap_pair(
    clap: ClapModel, head: FusionHeadConfig | None, mean_frequencies: bool = False
) -> TowerPair:
    """The towers of a model, which are used and not copied, and a new head; see
    :class:`~atr_moco_plugin.model.clap.ClapAudioTower` for ``mean_frequencies``."""
    audio, text = ClapAudioTower(clap, mean_frequencies), ClapTextTower(clap)
    fusion = None if head is None else FusionHead(text, audio.width, head)
    return TowerPair(audio, text, fusion, clap.config.projection_dim)


class ClapParts(NamedTuple):
    """A ``ClapModel`` with its weights, and what reads its inputs.

    Attributes:
        clap: the model.
        pair: its towers, the model's own modules, and a matching head where there is one.
        tokenizer: of transformers.
        extractor: its feature extractor.
    """

    clap: ClapModel
    pair: TowerPair
    tokenizer: Any
    extractor: ClapFeatureExtractor


def clap_of_bundle(bundle: Bundle, name: str) -> Backbone:
    """The model of a bundle of the kind ``clap``.

    Raises:
        InputError: if its files contradict each other.
    """
    _, pair, tokenizer, extractor = bundled_clap(bundle)
    return _backbone(
        name,
        bundle_fingerprint(bundle.folder, bundle.config),
        bundle.config,
        pair,
        tokenizer,
        extractor,
        bundle.folder,
    )


def bundled_clap(bundle: Bundle) -> ClapParts:
    """The ``ClapModel`` of a bundle, frozen and in eval mode.

    Raises:
        InputError: if its files contradict each other.
    """
    options, file = bundle.config.model, bundle.folder / CONFIG
    try:
        config = ClapConfig.from_dict(dict(options["clap"]))
        with torch.random.fork_rng([]):  # random weights are drawn, and replaced
            clap = ClapModel(config)
    except Exception as ex:  # any key may be missing or wrong
        raise InputError(
            f"{file} has no `model.clap` that a ClapModel can be made of ({_said(ex)}): export the "
            "bundle again"
        ) from ex
    head = options.get("head")
    head_config = None if head is None else build_config(FusionHeadConfig, head, "model.head")
    pair = clap_pair(clap, head_config, options.get("mean_frequencies") is True)
    load_state(pair, bundle)
    extractor = _extractor(bundle.folder / FEATURE_EXTRACTOR)
    if extractor.sampling_rate != bundle.config.sample_rate:
        raise InputError(
            f"{file} says {bundle.config.sample_rate} Hz, but the feature extractor beside it "
            f"{extractor.sampling_rate} Hz: export the bundle again"
        )
    return ClapParts(clap, pair, load_tokenizer(str(bundle.folder / TOKENIZER)), extractor)


def public_clap_parts(folder: Path, name: str) -> ClapParts:
    """The same model in its parts, frozen and in eval mode.

    Raises:
        InputError: see :func:`public_clap`.
    """
    try:
        clap, report = ClapModel.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
    except Exception as ex:  # damaged files raise nearly anything
        raise InputError(
            f"{name} cannot be loaded as a ClapModel ({_said(ex)}): download it again"
        ) from ex
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} weights of its ClapModel, such as {missing[0]}: download "
            "it again, or save it with `save_pretrained`"
        )
    pair = clap_pair(clap.float(), None)
    pair.requires_grad_(False).eval()
    extractor = _extractor(folder)
    tokenizer = load_tokenizer(str(folder))
    most = min(tokenizer.model_max_length, text_positions(clap.text_model) or 512)
    check_tokenizer(tokenizer, clap.text_model, most)
    return ClapParts(clap, pair, tokenizer, extractor)


def public_clap(folder: Path, name: str) -> Backbone:
    """A ``ClapModel`` as ``save_pretrained`` of transformers writes it, with its processor.

    Raises:
        InputError: if a file is missing or damaged, or weights are missing.
    """
    clap, pair, tokenizer, extractor = public_clap_parts(folder, name)
    most = min(tokenizer.model_max_length, text_positions(clap.text_model) or 512)
    seconds = float(extractor.max_length_s)
    config = BundleConfig(
        kind="clap",
        model=clap_options(clap.config, None),
        sample_rate=extractor.sampling_rate,
        window_seconds=seconds,
        hop_seconds=seconds,
        max_tokens=most,
        temperature=clap_temperature(clap),
        # A folder's own name and not its path, which is of this machine.
        origin={"model": Path(name).name if Path(name).is_absolute() else name},
    )
    digest = public_fingerprint(folder)
    return _backbone(name, digest, config, pair, tokenizer, extractor, folder)


def public_fingerprint(folder: Path) -> str:
    """The fingerprint of a public model: of the files that its embeddings depend on."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    places = [folder / CONFIG, *weights, *(folder / x for x in _FILES)]
    files = {file.name: file for file in places if file.is_file()}
    return model_fingerprint({"kind": "clap"}, digests(files))


def _backbone(
    name: str,
    digest: str,
    config: BundleConfig,
    pair: TowerPair,
    tokenizer: Any,
    extractor: ClapFeatureExtractor,
    folder: Path,
) -> Backbone:
    longest = round(config.window_seconds * config.sample_rate)
    if longest > extractor.nb_max_samples:  # it would cut at random
        raise InputError(
            f"{name} has windows of {config.window_seconds:g} s, but its feature extractor takes "
            f"at most {extractor.max_length_s:g} s: set `window_seconds` to that or less"
        )

    def audio_inputs(waveforms: Sequence[Samples]) -> dict[str, Tensor]:
        features = torch.stack([clip_features(extractor, x, seed=0) for x in waveforms])
        # The extractor marks one clip at random as longer where the model fuses crops; none is.
        return {
            "input_features": features,
            "is_longer": torch.zeros(len(waveforms), 1, dtype=torch.bool),
        }

    def text_inputs(input_ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"input_ids": input_ids, "attention_mask": mask.long()}

    return Backbone(
        name, digest, config, pair, tokenizer, extractor, folder, audio_inputs, text_inputs
    )


def _extractor(folder: Path) -> ClapFeatureExtractor:
    try:
        return ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except Exception as ex:
        raise InputError(
            f"{folder} has no feature extractor that can be read ({_said(ex)}): put the "
            "preprocessor_config.json of the model there"
        ) from ex


def _said(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "..."
