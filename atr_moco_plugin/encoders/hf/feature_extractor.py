"""Feature extractors of the transformers library, from a checkpoint or from their entries."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import AutoFeatureExtractor, PretrainedConfig

from atr_moco_plugin.encoders.sources import find_folder
from atr_moco_plugin.errors import InputError, MissingFileError

FILE = "preprocessor_config.json"
_KIND = "feature_extractor_type"


def read_extractor(
    pretrained: str | None, changes: Mapping[str, Any] | None, config: PretrainedConfig
) -> Any:
    """The feature extractor of a model.

    Args:
        pretrained: see :attr:`HfConfig.pretrained`.
        changes: see :attr:`HfAudioConfig.feature_extractor`.
        config: the model's configuration, which says what is usual without either.

    Raises:
        FileNotFoundError: ``pretrained`` has no ``preprocessor_config.json``.
        InputError: it is damaged, or ``changes`` does not describe a feature extractor.
    """
    values = _usual(config) if pretrained is None else plain_extractor(_read(pretrained))
    values |= changes or {}
    kind = getattr(transformers, str(values.pop(_KIND)), None)
    if kind is None or not hasattr(kind, "from_dict"):
        raise InputError(
            f"`feature_extractor.{_KIND}` is {(changes or {}).get(_KIND)!r}, which this version of "
            "transformers does not know; correct it or update transformers."
        )
    # With its type, and without a model beside it, it is whole, as a model.json has it.
    whole = pretrained is None and _KIND in (changes or {})
    known = {_KIND, *kind().to_dict(), *inspect.signature(kind.__init__).parameters}
    for name in () if whole else changes or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            raise InputError(
                f"`feature_extractor.{name}` is no entry of a {kind.__name__}."
                + (f" Did you mean `{near[0]}`?" if near else "")
            )
    try:
        return kind.from_dict(values)
    except Exception as error:  # whatever a feature extractor raises
        raise InputError(
            f"`feature_extractor` does not describe a {kind.__name__} "
            f"({type(error).__name__}: {' '.join(str(error).split())})."
        ) from error


def plain_extractor(extractor: Any) -> dict[str, Any]:
    """The entries of a feature extractor that build it again."""
    values: dict[str, Any] = json.loads(extractor.to_json_string())
    values.pop("processor_class", None)  # of a tokenizer beside it
    return {**dict(sorted(values.items())), _KIND: type(extractor).__name__}


def _read(pretrained: str) -> Any:
    folder = find_folder(pretrained, [FILE])
    try:
        return AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
            folder or pretrained, local_files_only=folder is not None, trust_remote_code=False
        )
    except Exception as error:  # damaged files raise nearly anything
        raise MissingFileError(
            f"The {FILE} of '{pretrained}', which says what an audio model takes, cannot be had "
            f"({type(error).__name__}): save its feature extractor beside the model."
        ) from error


def _usual(config: PretrainedConfig) -> dict[str, Any]:
    """Entries for a model that starts from random weights."""
    if config.model_type == "whisper":
        # 16,000 samples and 100 frames a second.
        seconds = config.max_source_positions * 2 // 100
        kind, own = "WhisperFeatureExtractor", {"feature_size": config.num_mel_bins}
        return {_KIND: kind, **own, "chunk_length": seconds}
    if config.model_type == "audio-spectrogram-transformer":
        own = {"max_length": config.max_length, "num_mel_bins": config.num_mel_bins}
        return {_KIND: "ASTFeatureExtractor", **own}
    if config.model_type == "wav2vec2-bert":
        return {_KIND: "SeamlessM4TFeatureExtractor"}
    return {_KIND: "Wav2Vec2FeatureExtractor"}
