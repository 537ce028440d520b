"""An audio encoder of the transformers library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.checkpoint import build, load, model_config, plain_config
from atr_moco_plugin.encoders.hf.config import HfAudioConfig
from atr_moco_plugin.encoders.hf.encoder import HfEncoder, evaluating, same_states
from atr_moco_plugin.encoders.hf.feature_extractor import plain_extractor, read_extractor
from atr_moco_plugin.encoders.hf.group_norm import leave_padding_out
from atr_moco_plugin.encoders.hf.inputs import WaveformInput, input_of
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.sample_rate import check_sample_rate
from atr_moco_plugin.tokens import AudioTokens


class HfAudioEncoder(HfEncoder):
    """An audio encoder of the transformers library, entry point ``hf_audio``.

    Wav2Vec2, HuBERT, WavLM and others on waveforms, AST, the encoder of Whisper, and Wav2Vec2-BERT.
    A clip has the same states alone and in any batch. Dropout is that of the checkpoint; masks over
    its features and layers left out at random are off.

    Args:
        model: the transformers model.
        config: the options, with the whole ``architecture`` and ``feature_extractor``.

    Attributes:
        config: the options.
        sample_rate: Hz, as the feature extractor has it.
        max_seconds: longest clip that the model takes; ``None`` where there is no limit.
        feature_extractor: the one of transformers.

    Raises:
        InputError: the model is of another kind, does not go with its feature extractor, or lets
            padding change a clip's states.

    Example::

        encoder = HfAudioEncoder.from_config(HfAudioConfig(pretrained="facebook/wav2vec2-base"))
        audio = encoder.eval()(waveforms, lengths)     # AudioTokens
    """

    config_class = HfAudioConfig

    def __init__(self, model: nn.Module, config: HfAudioConfig) -> None:
        super().__init__(model)
        self.config = config
        self.feature_extractor = read_extractor(None, config.feature_extractor, self.model.config)
        rate = self.feature_extractor.sampling_rate
        self.sample_rate = check_sample_rate(rate, "the feature extractor")
        self._input = input_of(self.feature_extractor, self.model.config)
        longest = self._input.max_samples
        self.max_seconds = None if longest is None else longest / self.sample_rate
        self.min_seconds = self._input.min_samples / self.sample_rate
        if isinstance(self._input, WaveformInput):
            leave_padding_out(self.model)
        if not self._input.fixed:
            self._check_padding()

    @classmethod
    def from_config(cls, config: HfAudioConfig) -> HfAudioEncoder:
        """Build the encoder, with the weights of ``config.pretrained`` if it is set.

        Raises:
            FileNotFoundError: ``config.pretrained`` is found in none of the three places.
            InputError: its files cannot be read, lack some of the encoder, or are of a model that
                cannot be used.
        """
        own = model_config(config.pretrained, config.architecture)
        extractor = read_extractor(config.pretrained, config.feature_extractor, own)
        if config.pretrained is None:
            model = build(own)
        else:
            model = load(config.pretrained, own, config.sha256)
        built = replace(
            config, architecture=plain_config(own), feature_extractor=plain_extractor(extractor)
        )
        return cls(model, built)

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Any:
        """The part of :meth:`forward` that does not depend on the weights.

        Of a model with spectrograms the feature extractor runs on the CPU, clip by clip.

        Args:
            waveforms: ``[B, samples]`` floating point in [-1, 1] at ``sample_rate``.
            lengths: ``[B]`` integer, valid samples of each clip, best on the CPU; ``None`` if no
                clip is padded.

        Returns:
            A named tuple; with ``fbank`` and ``mask`` where the model takes spectrograms.

        Raises:
            InputError: a clip is longer than ``max_seconds``.
            ValueError: a clip is shorter than a token, or shapes differ from the above.
        """
        return self._input.features(waveforms, self._counts(waveforms, lengths))

    def forward(
        self,
        waveforms: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Any = None,
    ) -> AudioTokens:
        """Encode padded clips.

        Args:
            waveforms: ``[B, samples]`` floating point in [-1, 1] at ``sample_rate``.
            lengths: ``[B]`` integer, valid samples of each clip, best on the CPU; ``None`` if no
                clip is padded.
            features: in place of waveforms, from :meth:`features`.

        Returns:
            States ``[B, T, width]`` and mask ``[B, T]``.

        Raises:
            InputError, ValueError: as :meth:`features`; waveforms and features are both given or
                both missing.
        """
        if (waveforms is None) == (features is None):
            got = "neither" if waveforms is None else "both"
            raise ValueError(f"The audio encoder takes waveforms or features, but got {got}.")
        if waveforms is not None:
            features = self.features(waveforms, lengths)
        return self._input.encode(self.model, features)

    def _counts(self, waveforms: Tensor, lengths: Tensor | None) -> list[int]:
        """Samples of each clip, after checking both arguments."""
        if waveforms.dim() != 2 or waveforms.size(0) == 0:
            raise ValueError(
                "waveforms must be [B, samples] with at least one clip, got shape "
                f"{list(waveforms.shape)}."
            )
        if lengths is not None and (
            lengths.shape != waveforms.shape[:1] or lengths.is_floating_point()
        ):
            raise ValueError(
                f"lengths must be [{waveforms.size(0)}] integer samples, got shape "
                f"{list(lengths.shape)} {lengths.dtype}."
            )
        b, samples = waveforms.shape
        counts: list[int] = [samples] * b if lengths is None else lengths.tolist()
        shortest, longest = self._input.min_samples, self._input.max_samples
        if min(counts) < shortest or max(counts) > samples:
            raise ValueError(
                f"lengths must be {shortest} to {samples} samples, got {min(counts)} to "
                f"{max(counts)}."
            )
        if longest is not None and max(counts) > longest:
            raise InputError(
                f"A clip of {max(counts) / self.sample_rate:.2f} s is longer than the "
                f"{self.max_seconds:.2f} s that a {self.model.config.model_type} takes: set "
                "`dataset.max_seconds` to that or less."
            )
        return counts

    def _check_padding(self) -> None:
        """Refuse a model whose states of a clip change with what the clip is padded with, such as
        one with convolutions over the padding between its layers."""
        name = f"The audio encoder hf_audio cannot use a {self.model.config.model_type}"
        device = next(self.parameters()).device
        # In steps of half a token or so, since some models put tokens together.
        steps = torch.tensor([*range(11, 16), 30]) * self.sample_rate // 100
        lengths = self._input.min_samples + steps
        size = (len(lengths), int(lengths.max()))
        generator = torch.Generator().manual_seed(0)
        noise = 0.1 * torch.randn(size, generator=generator, dtype=torch.float32).to(device)
        try:
            with evaluating(self):
                states, mask = self(noise, lengths)
                alone = [self(row[None, :n]) for row, n in zip(noise, lengths, strict=True)]
        except Exception as error:  # whatever layers raise for sizes that make no sense
            raise InputError(
                f"{name} of these sizes ({type(error).__name__}: {' '.join(str(error).split())}); "
                "correct `architecture`."
            ) from error
        if states.shape != (*mask.shape, self.width):
            raise InputError(
                f"{name}, whose tokens do not follow from its convolutions; take another model."
            )
        for row, valid, (expected, whole) in zip(states, mask, alone, strict=True):
            if not same_states(row[valid], expected[whole]):
                raise InputError(
                    f"{name}, since it lets a clip's padding change its embedding; take Wav2Vec2, "
                    "HuBERT, WavLM, Wav2Vec2-BERT, AST or Whisper."
                )
