"""The BEATs configuration, and its translation from the official ``cfg``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from atr_moco_plugin.config import Config, as_loaded, in_range
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.encoders.beats.fbank import MEAN, MEL_BINS, STD
from atr_moco_plugin.errors import InputError

logger = logging.getLogger(__name__)

PaddingMask = Literal["exact", "official"]

# Defaults of the official code for a cfg without the entry; the base model has other values.
_OFFICIAL_DEFAULTS: dict[str, Any] = {
    "deep_norm": False,
    "relative_position_embedding": False,
    "gru_rel_pos": False,
    "max_distance": 1280,
    "dropout_input": 0.0,
    "predictor_dropout": 0.1,
}

# Settings of the official cfg that this encoder fixes, with the reason shown to the user.
_FIXED = {
    "encoder_layerdrop": (0.0, "it drops different layers in each process"),
    "layer_wise_gradient_decay_ratio": (1.0, "it silently scales the gradients of lower layers"),
}

_SIZES = (
    "input_patch_size",
    "embed_dim",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "conv_pos",
    "conv_pos_groups",
    "predictor_class",
)
_DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "dropout_input",
    "predictor_dropout",
)
_OURS = {"padding_mask", "checkpoint", "sha256"}


@dataclass
class BeatsConfig(Config):
    """Configuration of :class:`~atr_moco_plugin.encoders.beats.BeatsEncoder`.

    Names are the names of the official ``cfg``; defaults are the released base model.

    Raises:
        InputError: If a value is out of range or contradicts another one.
    """

    input_patch_size: int = 16
    """Side of a square patch of the filterbank, in frames and in mel bins."""

    embed_dim: int = 512
    """Width of a patch embedding."""

    conv_bias: bool = False
    """Whether the patch embedding has a bias."""

    encoder_layers: int = 12
    """Number of transformer layers."""

    encoder_embed_dim: int = 768
    """Width of the transformer and of the returned token states."""

    encoder_ffn_embed_dim: int = 3072
    """Inner width of the feed-forward blocks."""

    encoder_attention_heads: int = 12
    """Number of attention heads; divides ``encoder_embed_dim``."""

    activation_fn: Literal["gelu", "relu"] = "gelu"
    """Activation of the feed-forward blocks."""

    deep_norm: bool = True
    """Whether residuals are scaled as in DeepNet (https://arxiv.org/abs/2203.00555)."""

    dropout: float = 0.1
    """Dropout after attention, after the feed-forward block and before the first layer."""

    attention_dropout: float = 0.1
    """Dropout of the attention weights."""

    activation_dropout: float = 0.0
    """Dropout after the activation of the feed-forward blocks."""

    dropout_input: float = 0.1
    """Dropout of the projected patches."""

    conv_pos: int = 128
    """Kernel size, in tokens, of the convolutional position embedding."""

    conv_pos_groups: int = 16
    """Groups of that convolution; divides ``encoder_embed_dim``."""

    relative_position_embedding: bool = True
    """Whether attention has a bias that depends on the distance between tokens."""

    num_buckets: int = 320
    """Number of distance buckets, half of them for each direction."""

    max_distance: int = 800
    """Distance, in tokens, from which all share the last bucket."""

    gru_rel_pos: bool = True
    """Whether each query gates its relative position bias."""

    finetuned_model: bool = False
    """Whether the model has the classification head of a fine-tuned checkpoint."""

    predictor_class: int = 527
    """Number of classes of that head (527 in AudioSet)."""

    predictor_dropout: float = 0.0
    """Dropout before that head."""

    fbank_mean: float = MEAN
    """Taken off the log mel energies; OpenBEATs models may have another one than BEATs."""

    fbank_std: float = STD
    """Half of what they are then divided by."""

    padding_mask: PaddingMask = "exact"
    """How padded tokens are found.

    ``exact`` counts the tokens a clip has alone, so that padding never changes it. ``official``
    repeats the published mask, which is off by up to a patch, for parity with it.
    """

    checkpoint: str | None = None
    """Path of an official checkpoint that :meth:`BeatsEncoder.from_config` loads, or of an
    OpenBEATs model (a file, or ESPnet's folder with its ``config.yaml``), or
    ``hf://OWNER/REPO/FILE``, or ``hf://OWNER/REPO`` for OpenBEATs.

    The architecture is the file's; dropouts and ``padding_mask`` are those given here, and
    ``fbank_mean`` and ``fbank_std`` too where the file says none. Another option that differs from
    the file's is refused.
    """

    sha256: str | None = None
    """Expected SHA-256 of the file at ``checkpoint``, in hexadecimal; verified when given."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, *_SIZES, least=1)
        yield from in_range(self, *_DROPOUTS, least=0, below=1)
        yield from in_range(self, "input_patch_size", most=MEL_BINS)
        yield from in_range(self, "num_buckets", least=4)
        yield from in_range(self, "fbank_mean", least=-1000, most=1000)
        yield from in_range(self, "fbank_std", above=0)
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                yield (
                    f"`{name}` is {getattr(self, name)}, expected a divisor of "
                    f"`encoder_embed_dim`, {self.encoder_embed_dim}."
                )
        if self.num_buckets % 2:
            yield f"`num_buckets` is {self.num_buckets}, expected an even number."
        if self.max_distance <= self.num_buckets // 4:
            yield (
                f"`max_distance` is {self.max_distance}, expected above `num_buckets` / 4, "
                f"{self.num_buckets // 4}."
            )
        if self.gru_rel_pos and not self.relative_position_embedding:
            yield "`gru_rel_pos` is True, expected False without `relative_position_embedding`."
        # The official mask divides the frames by the tokens, of which there must not be more.
        patch = self.input_patch_size
        if self.padding_mask == "official" and MEL_BINS // patch > patch:
            yield f"`padding_mask` is 'official', expected exact for `input_patch_size` {patch}."
        if self.sha256 is not None and self.checkpoint is None:
            yield "`sha256` is given without a `checkpoint` to verify; set both or none."

    @classmethod
    def from_official(
        cls, cfg: Mapping[str, Any], padding_mask: PaddingMask = "exact"
    ) -> BeatsConfig:
        """Translate an official ``cfg``; entries that only concern its training are ignored.

        ``encoder_layerdrop`` becomes 0 and ``layer_wise_gradient_decay_ratio`` 1, which is logged
        where the file says otherwise.

        Raises:
            InputError: If the patch size is absent, a value is out of range or of the wrong type,
                or the layers normalise first (no released model does).
        """
        if "input_patch_size" not in cfg:
            raise InputError(
                "The BEATs cfg has no 'input_patch_size'; expected the cfg of an official encoder."
            )
        if cfg.get("layer_norm_first", False):
            raise InputError(
                "layer_norm_first must be False, as in every released BEATs checkpoint; "
                "pre-norm layers are not supported."
            )
        for name, (value, reason) in _FIXED.items():
            found = cfg.get(name, value)
            if found != value:
                logger.info("BEATs: %s %s is set to %s, because %s.", name, found, value, reason)
        names = {field.name for field in fields(cls)} - _OURS
        given = {name: value for name, value in cfg.items() if name in names}
        own = {"padding_mask": padding_mask}
        return build_config(cls, {**_OFFICIAL_DEFAULTS, **given, **own}, "cfg")

    def loaded_from(self, cfg: Mapping[str, Any], path: object) -> BeatsConfig:
        """The configuration of a checkpoint with what a user chooses: dropouts, ``padding_mask``,
        and the statistics of the filterbank where the file says none.

        Raises:
            InputError: As :meth:`from_official`, and where another option differs from the file's.
        """
        own = [*_DROPOUTS, "padding_mask"]
        own += [name for name in ("fbank_mean", "fbank_std") if name not in cfg]
        wish = replace(self, checkpoint=None, sha256=None)  # what is loaded needs no file
        return as_loaded(wish, type(self).from_official(cfg), own, path)


ReadConfig = Callable[[Mapping[str, Any]], BeatsConfig]
"""Makes a configuration of a checkpoint's ``cfg``."""
