"""Configuration of the encoders of the transformers library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atr_moco_plugin.config import Config
from atr_moco_plugin.encoders.hf.checkpoint import model_config
from atr_moco_plugin.encoders.weights import digest_problems


@dataclass(kw_only=True)
class HfConfig(Config):
    """What both kinds of encoders take.

    Raises:
        InputError: neither ``pretrained`` nor a ``model_type`` says what to build, or ``sha256`` is
            no digest or has no ``pretrained`` beside it.
    """

    pretrained: str | None = None
    """A model with its weights: a local folder that ``save_pretrained`` wrote, the name of an
    installed pip package that carries such a folder, or a Hugging Face name. ``None`` builds
    ``architecture`` from random weights."""

    architecture: dict[str, object] | None = None
    """Entries of the model's ``config.json``, ``model_type`` above all. Beside ``pretrained`` they
    change what its own file says, such as ``hidden_dropout_prob``."""

    sha256: str | None = None
    """Expected SHA-256 of the weights file, as 64 hexadecimal digits; ``None`` skips the check."""

    def problems(self) -> Iterator[str]:
        if self.pretrained is None and "model_type" not in (self.architecture or {}):
            yield (
                "`pretrained` is missing: set it to a model's name or folder, or set "
                "`architecture` with its `model_type`, such as {model_type: bert}, to start from "
                "random weights."
            )
        yield from digest_problems(self.sha256, self.pretrained)


@dataclass(kw_only=True)
class HfTextConfig(HfConfig):
    """A text encoder; ``HfTextConfig(pretrained="sentence-transformers/all-mpnet-base-v2")``."""

    @property
    def vocab_size(self) -> int | None:
        """Embeddings that the encoder has; ``None`` before it is built."""
        return self._number("vocab_size")

    @property
    def max_position_embeddings(self) -> int | None:
        """Positions that the encoder has; ``None`` where they have no end, as T5's and XLNet's."""
        positions = self._number("max_position_embeddings")
        return None if positions is None or positions < 1 else positions

    def _number(self, name: str) -> int | None:
        if not self.architecture or "model_type" not in self.architecture:
            return None
        value = getattr(model_config(None, self.architecture), name, None)
        return value if isinstance(value, int) else None


@dataclass(kw_only=True)
class HfAudioConfig(HfConfig):
    """An audio encoder; ``HfAudioConfig(pretrained="facebook/wav2vec2-base")``."""

    feature_extractor: dict[str, object] | None = None
    """Entries of ``preprocessor_config.json``. Beside ``pretrained`` they change what its own file
    says; without it ``None`` takes the usual ones of the ``model_type``."""
