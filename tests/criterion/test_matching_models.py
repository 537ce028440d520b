"""A model that cannot match is refused when the criterion is made, not when matching begins."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from linear import LinearModel, LinearTower, linear_batch
from torch import nn

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.model import RetrievalModel

CONFIG = MocoAtcAtmConfig(queue_size=8)


class Unmatched(nn.Module):
    embed_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.text = LinearTower(of_text=False), LinearTower(of_text=True)


def fusion_head(text: int, audio: int) -> FusionHead:
    return FusionHead(SimpleNamespace(width=text), audio, FusionHeadConfig(layers=1))


def test_a_model_without_match_is_refused() -> None:
    with pytest.raises(InputError, match="Unmatched has none: take `moco_atc`"):
        MocoAtcAtm(Unmatched(), CONFIG)
    MocoAtc(Unmatched(), MocoAtcConfig(queue_size=8))(**linear_batch())


def test_a_model_without_a_head_is_refused(tiny_model: Callable[..., RetrievalModel]) -> None:
    model = tiny_model()
    model.head = None
    with pytest.raises(InputError, match=r"`model.head`, but it is None: take `moco_atc`"):
        MocoAtcAtm(model, CONFIG)


@pytest.mark.parametrize("of", ["encoder", "tower"])
def test_a_head_of_another_width_is_refused(
    tiny_model: Callable[..., RetrievalModel], of: str
) -> None:
    model = tiny_model()
    audio, text = model.audio.encoder.width, model.text.encoder.width
    if of == "tower":  # whose tokens are narrower than its encoder's
        model.audio.width, audio = audio - 1, audio - 1
    for widths, said in (
        ((text, audio + 1), f"audio tokens of width {audio + 1}.* of width {audio}"),
        ((text + 8, audio), f"text tokens of width {text + 8}.* of width {text}"),
    ):
        model.head = fusion_head(*widths)
        with pytest.raises(InputError, match=said):
            MocoAtcAtm(model, CONFIG)
    model.head = fusion_head(text, audio)
    MocoAtcAtm(model, CONFIG)


def test_a_match_of_ones_own_needs_no_head_and_no_width() -> None:
    model = LinearModel()
    model.audio.width = 5
    for head in (None, fusion_head(5, 7)):
        model.head = head
        MocoAtcAtm(model, CONFIG)
