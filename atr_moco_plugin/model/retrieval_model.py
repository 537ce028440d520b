"""The model that criteria train: two towers and a matching head."""

from __future__ import annotations

from torch import Tensor, nn

from atr_moco_plugin.contracts import Head
from atr_moco_plugin.learned_distance import EXTRA, LearnedDistance
from atr_moco_plugin.model.config import RetrievalModelConfig
from atr_moco_plugin.model.freezing import FreezableTower, freeze_encoder
from atr_moco_plugin.model.text_tower import TextTower
from atr_moco_plugin.model.towers import AudioTower
from atr_moco_plugin.tokens import AudioTokens, TextTokens


class RetrievalModel(nn.Module):
    """Two towers into one embedding space, and a head that scores pairs of token sequences.

    Args:
        audio: the audio tower.
        text: the text tower.
        head: see :class:`~atr_moco_plugin.contracts.Head`.

    Attributes:
        config: what :func:`~atr_moco_plugin.model.build_model` made it from; None for a model of
            other parts.
    """

    config: RetrievalModelConfig | None = None

    audio: AudioTower
    text: TextTower
    head: Head

    def __init__(self, audio: AudioTower, text: TextTower, head: Head) -> None:
        super().__init__()
        self.audio = audio
        self.text = text
        self.head = head
        self.note_frozen()

    def note_frozen(self) -> None:
        """Take what is frozen now for what :meth:`freeze` freezes."""
        self._frozen = [name for name, p in self.named_parameters() if not p.requires_grad]

    def freeze(self) -> None:
        """Freeze again what was frozen when the model was built, such as the classifier of a
        fine-tuned BEATs: a host that makes every parameter trainable calls it afterwards."""
        for tower in (self.audio, self.text):
            if isinstance(tower, FreezableTower):
                freeze_encoder(tower, tower.frozen)
        for name in self._frozen:
            self.get_parameter(name).requires_grad_(False)

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the audio encoder takes. Data are read at this rate."""
        return self.audio.encoder.sample_rate

    @property
    def embed_dim(self) -> int:
        """Size d of the embeddings."""
        ranks_by_distance = getattr(self.audio, "distance", None) is not None
        return self._projected + EXTRA * ranks_by_distance

    @property
    def _projected(self) -> int:
        return self.audio.projection.out_features

    def rank_by_distance(self, factor: Tensor) -> None:
        """Give the towers of a trained model a last layer, so that the cosine of what they return
        ranks by a learned distance: :mod:`atr_moco_plugin.learned_distance`.

        Args:
            factor: L, ``[d, d]``, or its diagonal, ``[d]``.
        """
        self.audio.distance = LearnedDistance(factor, "audio")
        self.text.distance = LearnedDistance(factor, "text")

    def rank_by_cosine(self) -> None:
        """Take the layers of :meth:`rank_by_distance` away, to train the model on."""
        self.audio.distance = self.text.distance = None

    @property
    def shares_audio(self) -> bool:
        """Whether the head, and so :meth:`match`, takes ``audio_rows``."""
        return getattr(self.head, "shares_audio", False)

    @property
    def needs_text_states(self) -> bool:
        """Whether the head reads ``text.states``. Otherwise they are ``None`` for :meth:`match`, in
        training and evaluation."""
        return getattr(self.head, "needs_text_states", True)

    def match(
        self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor | None = None
    ) -> Tensor:
        """Matching logits of P pairs, row by row.

        Args:
            text: P texts; their states may be ``None`` unless :attr:`needs_text_states`.
            audio: P audios.
            audio_rows: ``[P]`` int64, the row of ``audio`` of each pair, where pairs share audios;
                only where :attr:`shares_audio`.

        Returns:
            ``[P, 2]``, index 1 = the pair matches.
        """
        rows = () if audio_rows is None else (audio_rows,)
        return self.head(self.text.encoder, text, audio, *rows)
