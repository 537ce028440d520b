"""Audio-text matching: does this caption describe this clip?

The paper's "cross-attention plus a two-way head": the fused text ``[CLS]`` state, which has
attended to the clip's audio tokens, goes through one linear layer to the logits of no match and
match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.encoders.bert import BertEncoder, CrossAttention, Fusion, init_bert_weights
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.pairs import check_pairs
from atr_moco_plugin.tokens import AudioTokens, TextTokens

FusionStyle = Literal["blip", "albef"]


@dataclass(kw_only=True)
class AtmHeadConfig(Config):
    """Where text and audio are fused.

    Raises:
        InputError: an unknown ``fusion``, or a ``fusion_layers`` that it does not use.
    """

    fusion: FusionStyle = "blip"
    """``blip`` (Li et al. 2022): a second pass of the captions through all layers of the text
    encoder, whose weights are shared, with a cross-attention in each. ``albef`` (Li et al. 2021):
    the upper layers of the text encoder become fusion layers and start from the text-only states of
    the lower ones, so that a pair costs half a pass but text-only embeddings have fewer layers."""

    fusion_layers: int | None = None
    """``albef`` only: how many upper layers fuse. ``None`` means half of them, rounded down."""

    def problems(self) -> Iterator[str]:
        if self.fusion_layers is not None and self.fusion == "blip":
            yield (
                "`fusion_layers` is for fusion 'albef' ('blip' fuses in every layer): leave it out "
                "or set fusion to 'albef'."
            )
        yield from in_range(self, "fusion_layers", least=1)


class AtmHead(nn.Module):
    """Matching head on a BERT text encoder.

    It owns the cross-attentions and the two-way classifier, and with ``albef`` the upper layers
    too, which its construction takes **out of** ``text_encoder``: build the head before momentum
    copies and optimizers. The text encoder itself is never registered here, so that no tensor is
    saved twice.

    Args:
        text_encoder: the online text encoder.
        audio_width: width of the audio tokens, from which keys and values are made.
        config: see :class:`AtmHeadConfig`.

    Raises:
        InputError: the text encoder is another than BERT, or ``albef`` with so many fusion layers
            that no text-only layer is left.
    """

    config_class = AtmHeadConfig
    shares_audio = True

    @property
    def needs_text_states(self) -> bool:
        """``blip`` starts from the ids."""
        return self.config.fusion == "albef"

    def __init__(
        self, text_encoder: BertEncoder, audio_width: int, config: AtmHeadConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or AtmHeadConfig()
        self.audio_width = audio_width
        if not isinstance(text_encoder, BertEncoder):
            raise InputError(
                "The head atm needs the text encoder bert, but got "
                f"{type(text_encoder).__name__}; take the head fusion, which goes with any."
            )
        depth = len(text_encoder.layers)
        self.layers: nn.ModuleList | None = None
        if self.config.fusion == "albef":
            count = self.config.fusion_layers or depth // 2
            self.layers = text_encoder.split(depth - count)
            depth = count
        self.crosses = nn.ModuleList(
            CrossAttention(text_encoder.config, audio_width) for _ in range(depth)
        )
        self.classifier = nn.Linear(text_encoder.width, 2)
        init_bert_weights(self.crosses, text_encoder.config.initializer_range)
        init_bert_weights(self.classifier, text_encoder.config.initializer_range)

    @property
    def text_layers(self) -> nn.ModuleList | None:
        """The layers taken out of the text encoder, from lower to upper; ``None`` with ``blip``.
        They are pretrained, so they train with the text encoder's learning rate."""
        return self.layers

    def forward(
        self,
        text_encoder: BertEncoder,
        text: TextTokens,
        audio: AudioTokens,
        audio_rows: Tensor | None = None,
    ) -> Tensor:
        """Score pairs given row by row.

        Args:
            text_encoder: the encoder the head was built on; ``blip`` runs it again.
            text: P captions. ``blip`` starts from ``input_ids``, and ``states`` may be ``None``;
                ``albef`` starts from ``states``.
            audio: P clips, ``[P, T, audio_width]``. Padded tokens never change a score; a clip
                without a valid token adds nothing to its caption.
            audio_rows: ``[P]`` int64, the row of ``audio`` of each pair, where pairs share clips:
                the keys and values of a clip are then made once. ``None`` pairs row by row.

        Returns:
            ``[P, 2]`` logits; index 1 means match.

        Raises:
            ValueError: text and audio differ in P, or the audio tokens have another width.
        """
        check_pairs(text, audio, self.audio_width, audio_rows)
        fusion = Fusion(self.crosses, audio, audio_rows)
        if self.layers is None:
            x = text_encoder(text.input_ids, text.mask, fusion).states
        else:
            assert text.states is not None, "albef says with needs_text_states that it reads them"
            x = fusion.run(self.layers, text.states, text.mask)
        logits: Tensor = self.classifier(x[:, 0])
        return logits
