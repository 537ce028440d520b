"""From waveforms to what an audio model of the transformers library takes, and its tokens.

Each kind of model does as its feature extractor does, but that it gives a clip the same features
alone and in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PretrainedConfig

from atr_moco_plugin.encoders.hf.group_norm import counts_for
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, valid_first


class Waves(NamedTuple):
    """Features of a model that takes waveforms.

    Attributes:
        waveforms: ``[B, samples]`` float32, zeros after each clip.
        samples: ``[B]`` int64, valid samples of each clip.
        padded: whether a clip is shorter than the batch.
    """

    waveforms: Tensor
    samples: Tensor
    padded: bool


class Spectrograms(NamedTuple):
    """Features of a model that takes spectrograms.

    Attributes:
        fbank: ``[B, frames, bins]`` float32, normalised.
        mask: ``[B, T]`` bool, the tokens of each clip.
    """

    fbank: Tensor
    mask: Tensor


class Input(Protocol):
    """What a kind of audio model takes.

    Attributes:
        max_samples: longest clip; ``None`` where there is no limit.
        min_samples: shortest clip, which makes one token.
        fixed: whether every clip is padded to one length, so that a batch cannot change it.
    """

    max_samples: int | None
    min_samples: int
    fixed: bool

    def features(self, waveforms: Tensor, counts: Sequence[int]) -> Any:
        """Features of ``[B, samples]`` float32 waveforms with ``counts`` valid samples each."""

    def encode(self, model: Any, features: Any) -> AudioTokens:
        """Tokens that the model makes of the features."""


class WaveformInput:
    """Wav2Vec2 and its kin (HuBERT, WavLM, UniSpeech, MMS): waveforms, and a convolution a token.

    Each clip gets zero mean and unit variance over its own samples, where the feature extractor
    asks for that.
    """

    max_samples = None
    fixed = False

    def __init__(self, extractor: Any, config: PretrainedConfig) -> None:
        self.normalize = bool(extractor.do_normalize)
        self.strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.min_samples = 1
        for kernel, stride in reversed(self.strides):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def features(self, waveforms: Tensor, counts: Sequence[int]) -> Waves:
        """On the device of the waveforms, without a wait for it."""
        x = waveforms[:, : max(counts)]
        samples = to_device(torch.tensor(counts), x.device)
        valid = valid_first(samples, x.size(1))
        if self.normalize:
            n = samples[:, None]
            x = x.double() * valid  # float32 would tell by its last bits how far a clip is padded
            x = x - x.sum(dim=1, keepdim=True) / n
            variance = (x.square() * valid).sum(dim=1, keepdim=True) / n
            x = x / (variance + 1e-7).sqrt()
        return Waves((x * valid).float(), samples, min(counts) < max(counts))

    def encode(self, model: Any, features: Waves) -> AudioTokens:
        waveforms, samples, padded = features
        mask = valid_first(samples, waveforms.size(1)).to(torch.int64) if padded else None
        counts = self._tokens(samples)
        with counts_for(model, self._tokens(samples, layers=1) if padded else None):
            states = model(waveforms.to(model.dtype), attention_mask=mask).last_hidden_state
        return AudioTokens(states, valid_first(counts, states.size(1)))

    def _tokens(self, samples: Tensor, layers: int | None = None) -> Tensor:
        """What the first convolutions, or all of them, make of that many samples."""
        for kernel, stride in self.strides[:layers]:
            samples = (samples - kernel) // stride + 1
        return samples


class SpectrogramInput:
    """What the models with spectrograms share: the feature extractor of transformers, clip by clip.

    It runs on the CPU and takes some milliseconds of a core a clip: 4 for 10 s of AST, 12 for
    Whisper's 30 s, 13 for 10 s of Wav2Vec2-BERT.
    """

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor

    def _extract(self, waveforms: Tensor, counts: Sequence[int], **options: Any) -> dict[str, Any]:
        clips = [row[:n].numpy() for row, n in zip(waveforms.cpu().float(), counts, strict=True)]
        with torch.autocast("cpu", enabled=False):
            found: dict[str, Any] = self.extractor(
                clips, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", **options
            )
        return {name: to_device(x, waveforms.device) for name, x in found.items()}


class AstInput(SpectrogramInput):
    """AST: log-mel frames, padded to one length as in its training, in overlapping patches.

    The model has no attention mask and sees the padding, which is the same for every clip of one
    length. Its first two tokens stand for the whole clip; of the others those are valid whose patch
    begins within the clip.
    """

    fixed = True

    def __init__(self, extractor: Any, config: PretrainedConfig) -> None:
        super().__init__(extractor)
        _agree(extractor, "max_length", "max_length", config.max_length)
        _agree(extractor, "num_mel_bins", "num_mel_bins", config.num_mel_bins)
        # Frames of Kaldi: 25 ms, every 10 ms, none beyond the end.
        self.window = int(extractor.sampling_rate * 0.025)
        self.hop = int(extractor.sampling_rate * 0.010)
        self.min_samples = self.window
        self.max_samples = self.window + self.hop * (config.max_length - 1)
        self.stride = config.time_stride
        self.steps = (config.max_length - config.patch_size) // config.time_stride + 1
        self.bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def features(self, waveforms: Tensor, counts: Sequence[int]) -> Spectrograms:
        fbank = self._extract(waveforms, counts)["input_values"]
        frames = (to_device(torch.tensor(counts), fbank.device) - self.window) // self.hop + 1
        steps = torch.div(frames - 1, self.stride, rounding_mode="floor") + 1
        valid = valid_first(steps, self.steps).repeat(1, self.bands)  # bands change slowest
        whole = torch.ones_like(valid[:, :2])
        return Spectrograms(fbank, torch.cat([whole, valid], dim=1))

    def encode(self, model: Any, features: Spectrograms) -> AudioTokens:
        states = model(features.fbank.to(model.dtype)).last_hidden_state
        return AudioTokens(states, features.mask)


class WhisperInput(SpectrogramInput):
    """Whisper's encoder: 30 s of log-mel frames, silence after the clip as in its training.

    The model has no attention mask and hears the silence; the tokens of it are not valid.
    """

    fixed = True

    def __init__(self, extractor: Any, config: PretrainedConfig) -> None:
        super().__init__(extractor)
        extractor.dither = 0.0  # noise
        _agree(extractor, "feature_size", "num_mel_bins", config.num_mel_bins)
        _agree(extractor, "nb_max_frames", "max_source_positions", 2 * config.max_source_positions)
        self.hop = 2 * extractor.hop_length
        self.tokens = config.max_source_positions
        self.min_samples = 1
        self.max_samples = int(extractor.n_samples)

    def features(self, waveforms: Tensor, counts: Sequence[int]) -> Spectrograms:
        device = str(waveforms.device)
        found = self._extract(waveforms, counts, device=device)["input_features"]
        samples = to_device(torch.tensor(counts), found.device)
        mask = valid_first((samples + self.hop - 1) // self.hop, self.tokens)
        return Spectrograms(found.transpose(1, 2), mask)

    def encode(self, model: Any, features: Spectrograms) -> AudioTokens:
        states = model(features.fbank.transpose(1, 2).to(model.dtype)).last_hidden_state
        return AudioTokens(states, features.mask)


class FrameInput(SpectrogramInput):
    """Wav2Vec2-BERT: two log-mel frames a token, each bin normalised over its own clip."""

    fixed = False
    max_samples = None

    def __init__(self, extractor: Any, config: PretrainedConfig) -> None:
        super().__init__(extractor)
        size = config.feature_projection_input_dim // extractor.stride
        _agree(extractor, "num_mel_bins", "feature_projection_input_dim", size)
        self.min_samples = int(extractor.sampling_rate * (0.025 + 0.010 * extractor.stride))

    def features(self, waveforms: Tensor, counts: Sequence[int]) -> Spectrograms:
        found = self._extract(waveforms, counts, padding=True, return_attention_mask=True)
        return Spectrograms(found["input_features"], found["attention_mask"].to(torch.bool))

    def encode(self, model: Any, features: Spectrograms) -> AudioTokens:
        mask = features.mask.to(torch.int64)
        states = model(features.fbank.to(model.dtype), attention_mask=mask).last_hidden_state
        return AudioTokens(states, features.mask)


_KINDS: dict[str, Any] = {
    "Wav2Vec2FeatureExtractor": WaveformInput,
    "ASTFeatureExtractor": AstInput,
    "WhisperFeatureExtractor": WhisperInput,
    "SeamlessM4TFeatureExtractor": FrameInput,
}
_NEEDED = {
    WaveformInput: ("conv_kernel", "conv_stride"),
    AstInput: ("time_stride", "frequency_stride", "patch_size"),
    WhisperInput: ("max_source_positions", "num_mel_bins"),
    FrameInput: ("feature_projection_input_dim",),
}


def input_of(extractor: Any, config: PretrainedConfig) -> Input:
    """What a model takes, by its feature extractor.

    Args:
        extractor: the feature extractor.
        config: of the model.

    Raises:
        InputError: for a kind of model that is not known here, or a feature extractor that makes
            something else than the model takes.
    """
    kind = _KINDS.get(type(extractor).__name__)
    if kind is None or not all(hasattr(config, name) for name in _NEEDED[kind]):
        raise InputError(
            f"The audio encoder hf_audio cannot use a {config.model_type} with a "
            f"{type(extractor).__name__}; take Wav2Vec2, HuBERT, WavLM, Wav2Vec2-BERT, AST or "
            "Whisper."
        )
    found: Input = kind(extractor, config)
    return found


def _agree(extractor: Any, name: str, entry: str, expected: object) -> None:
    """Refuse a feature extractor that makes something else than the model takes."""
    value = getattr(extractor, name)
    if value != expected:
        raise InputError(
            f"`feature_extractor.{name}` is {value}, but the model takes {expected} "
            f"(`architecture.{entry}`): give the feature extractor and the model of one checkpoint."
        )
