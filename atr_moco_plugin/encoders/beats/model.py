"""The BEATs audio encoder: waveforms to token states."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.beats.checkpoint import (
    from_official,
    official_name,
    read_checkpoint,
)
from atr_moco_plugin.encoders.beats.config import BeatsConfig, PaddingMask, ReadConfig
from atr_moco_plugin.encoders.beats.dropping import draw_patches
from atr_moco_plugin.encoders.beats.fbank import MEL_BINS, SAMPLE_RATE, fbank
from atr_moco_plugin.encoders.beats.features import BeatsFeatures, BeatsStates, seen
from atr_moco_plugin.encoders.beats.padding import (
    sample_counts,
    samples_for,
    tokens_of,
    valid_tokens,
)
from atr_moco_plugin.encoders.beats.traceable import TraceableBeats
from atr_moco_plugin.encoders.beats.transformer import BeatsTransformer
from atr_moco_plugin.encoders.weights import load
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, valid_first


class BeatsEncoder(nn.Module):
    """BEATs (Chen et al., ICML 2023, https://arxiv.org/abs/2212.09058).

    The constructor initialises at random, as published. :meth:`from_checkpoint` loads an official
    checkpoint, and :meth:`from_config` does one or the other.

    The classification head of a fine-tuned model, ``predictor``, is frozen: only
    :meth:`probabilities` uses it, and DDP refuses trainable parameters that take no part in a step.

    Attributes:
        config: The configuration built; ``checkpoint`` and ``sha256`` are ``None`` in it.
        width: Size of a token state.
        sample_rate: Hz of the waveforms expected.

    Raises:
        ValueError: If ``config.checkpoint`` is set.

    Example:
        >>> config = BeatsConfig(
        ...     encoder_layers=2, encoder_embed_dim=48, encoder_ffn_embed_dim=96,
        ...     encoder_attention_heads=4, embed_dim=32, conv_pos=16,
        ... )
        >>> encoder = BeatsEncoder(config).eval()
        >>> states, mask = encoder(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
        >>> list(states.shape), mask.sum(1).tolist()
        ([2, 48, 48], [48, 24])
    """

    config_class = BeatsConfig
    weights_option = "checkpoint"
    sample_rate = SAMPLE_RATE

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        if config.checkpoint is not None:
            raise ValueError(
                "BeatsEncoder(config) initialises at random and would ignore config.checkpoint, "
                f"{config.checkpoint}; call BeatsEncoder.from_config(config) to load it."
            )
        self.config = config
        self.width = config.encoder_embed_dim
        patch = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = (
            nn.Linear(config.embed_dim, self.width) if config.embed_dim != self.width else None
        )
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = BeatsTransformer(config)
        self.predictor_dropout = nn.Dropout(config.predictor_dropout)
        self.predictor: nn.Linear | None = None
        if config.finetuned_model:
            self.predictor = nn.Linear(self.width, config.predictor_class).requires_grad_(False)

    @property
    def any_padding(self) -> bool:
        """Whether a clip's tokens are the same however its batch is padded."""
        return self.config.padding_mask == "exact"

    @property
    def bands(self) -> int:
        """Rows of mel bands: the tokens of a time step."""
        return MEL_BINS // self.config.input_patch_size

    @property
    def min_seconds(self) -> float:
        """Length of the shortest clip: one token."""
        return samples_for(1, self.config.input_patch_size) / SAMPLE_RATE

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer's layers, from input to output."""
        return self.encoder.layers

    @classmethod
    def from_config(cls, config: BeatsConfig) -> BeatsEncoder:
        """Load ``config.checkpoint``, or initialise at random where it is ``None``.

        The architecture is the checkpoint's; see :attr:`BeatsConfig.checkpoint`.

        Raises:
            FileNotFoundError: If ``config.checkpoint`` is set and not a file.
            InputError: As :meth:`from_checkpoint`, and for an option that the file contradicts.
        """
        if config.checkpoint is None:
            return cls(config)
        path = config.checkpoint
        return cls._load(path, config.sha256, lambda cfg: config.loaded_from(cfg, path))

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, padding_mask: PaddingMask = "exact", sha256: str | None = None
    ) -> BeatsEncoder:
        """Load an official checkpoint, self-supervised or fine-tuned, with its own dropouts.

        Args:
            path: Local file, as :func:`~atr_moco_plugin.encoders.beats.checkpoint.read_checkpoint`.
            padding_mask: ``exact``, or ``official`` for parity with the published code.
            sha256: Expected digest of the file in hexadecimal, or ``None``.

        Raises:
            FileNotFoundError: If ``path`` is not a file.
            InputError: If the digest differs, the file is unreadable or of another model, or its
                cfg and parameters do not fit together.
        """
        return cls._load(path, sha256, lambda cfg: BeatsConfig.from_official(cfg, padding_mask))

    @classmethod
    def _load(cls, path: str | Path, sha256: str | None, read: ReadConfig) -> BeatsEncoder:
        cfg, model = read_checkpoint(path, sha256)
        try:
            config = read(cfg)
            state = from_official(model)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return load(
            lambda: cls(config),
            state,
            path,
            layers=config.encoder_layers,
            config="its cfg",
            shown=official_name,
        )

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> BeatsFeatures:
        """The part of :meth:`forward` that does not depend on the weights: filterbank and mask.

        An online encoder and its momentum copy see the same clips, so a criterion computes this
        once for both. Arguments are those of :meth:`forward`.

        Raises:
            ValueError: As :meth:`forward`.
        """
        samples = sample_counts(waveforms, lengths)
        patch, padding_mask = self.config.input_patch_size, self.config.padding_mask
        counts = valid_tokens(samples, waveforms.size(1), patch, padding_mask)
        tokens = max(counts) if padding_mask == "exact" else tokens_of(waveforms.size(1), patch)
        steps = tokens // self.bands
        mask = valid_first(to_device(torch.tensor(counts), waveforms.device), tokens)
        features = fbank(
            waveforms[:, : samples_for(steps, patch)],
            self.config.fbank_mean,
            self.config.fbank_std,
        )
        return BeatsFeatures(features, mask, min(counts) < tokens)

    def draw_patches(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, time: float, bands: int
    ) -> Tensor:
        """Draw the tokens that a training step keeps: one pattern for the batch, of whole time
        steps and whole rows of mel bands, with the global generator of the CPU. Each clip keeps all
        but its share of its own time steps, and at least one.

        Args:
            waveforms, lengths: as of :meth:`forward`.
            time: share of the time steps that are dropped, rounded down to steps; below 1.
            bands: rows that are dropped, below :attr:`bands`.

        Returns:
            ``[K]`` int64 on the device of ``waveforms``, for ``kept`` of the features.

        Raises:
            InputError: If the padding mask is ``official``, which may end within a time step.
        """
        if self.config.padding_mask != "exact":
            raise InputError(
                "`padding_mask` is official, but patch dropout needs exact, with whole time steps."
            )
        patch, samples = self.config.input_patch_size, sample_counts(waveforms, lengths)
        counts = valid_tokens(samples, waveforms.size(1), patch, "exact")
        kept = draw_patches([n // self.bands for n in counts], self.bands, time, bands)
        return to_device(kept, waveforms.device)

    def forward(
        self,
        waveforms: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: BeatsFeatures | None = None,
    ) -> AudioTokens:
        """Encode padded clips.

        Under the exact padding mask the batch is cut to its longest clip, and a clip's valid states
        equal the states of the clip alone.

        Args:
            waveforms: ``[B, samples]`` floating point in [-1, 1] at 16 kHz, zeros after each clip.
            lengths: ``[B]`` integer samples of each clip on the CPU, or ``None`` if none is padded.
                On an accelerator the host waits for them.
            features: in place of waveforms, from :meth:`features`; with the tokens that are kept,
                if some are dropped.

        Returns:
            States ``[B, T, width]`` and mask ``[B, T]``; tokens are in time order, the 8 frequency
            bands of a time step (160 ms) adjacent. 10 s give 496 tokens.

        Raises:
            ValueError: If a clip is below 2,800 samples (0.175 s, one token) or longer than the
                batch, an argument has another shape or type, or waveforms and features are both
                given or both missing.
        """
        if features is None:
            if waveforms is None:
                raise ValueError("The BEATs encoder takes waveforms or features, but got neither.")
            features = self.features(waveforms, lengths)
        elif waveforms is not None:
            raise ValueError("The BEATs encoder takes waveforms or features, but got both.")
        patches = self.dropout_input(self._patches(features.fbank))
        states = self.encoder(patches, features.mask if features.padded else None, features.kept)
        return AudioTokens(states, seen(features))

    def lower(self, *, features: BeatsFeatures, layers: int) -> BeatsStates:
        """The first part of :meth:`forward`, as a frozen part computes it: without dropout of the
        patches and positions, and of every token: those that are not kept are dropped in
        :meth:`upper`. Its layers are in eval mode if the caller has them so.

        Args:
            features: from :meth:`features`.
            layers: how many of the lowest layers to run.
        """
        fbank, mask, padded, kept = features
        valid = mask if padded else None
        x = self.encoder.positioned(self._patches(fbank), valid)
        return BeatsStates(self.encoder.run(x, valid, end=layers), mask, padded, layers, kept)

    def upper(self, lower: BeatsStates) -> AudioTokens:
        """The rest of :meth:`forward`.

        Args:
            lower: from :meth:`lower`, of this encoder or one with the same lowest layers.
        """
        x = lower.states.to(self.encoder.layer_norm.weight.dtype)
        valid = lower.mask if lower.padded else None
        states = self.encoder.run(x, valid, first=lower.layers, kept=lower.kept)
        return AudioTokens(states, seen(lower))

    def _patches(self, fbank: Tensor) -> Tensor:
        """Projected patches ``[B, T, width]`` of ``[B, frames, 128]``."""
        spectrogram = fbank.to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(spectrogram.unsqueeze(1)).flatten(2).transpose(1, 2)
        x: Tensor = self.layer_norm(patches)
        return x if self.post_extract_proj is None else self.post_extract_proj(x)

    def traceable(self) -> TraceableBeats:
        """A copy that ``torch.export`` traces, for ONNX; it takes waveforms and lengths alone."""
        return TraceableBeats(self)

    def probabilities(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Class probabilities ``[B, predictor_class]`` of a fine-tuned model.

        Arguments are those of :meth:`forward`. Logits are averaged over a clip's valid tokens.

        Raises:
            ValueError: If the model has no classification head, or as :meth:`forward`.
        """
        if self.predictor is None:
            raise ValueError(
                "This BEATs encoder has no classification head; load a fine-tuned checkpoint."
            )
        states, mask = self(waveforms, lengths)
        logits = self.predictor(self.predictor_dropout(states))
        logits = logits.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        probabilities: Tensor = (logits / mask.sum(1, keepdim=True)).sigmoid()
        return probabilities
