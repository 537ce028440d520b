"""A model that cannot match is refused when the criterion is made, not when matching begins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from linear import LinearModel, LinearTower, linear_batch
from torch import nn

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig

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


def test_a_model_without_a_head_is_refused() -> None:
    model = LinearModel()
    model.head = None
    with pytest.raises(InputError, match=r"`model.head`, but it is None: take `moco_atc`"):
        MocoAtcAtm(model, CONFIG)


@pytest.mark.parametrize(
    ("widths", "said"),
    [((5, 7), "audio tokens of width 7.* of width 5"), ((8, 5), "text tokens of width 8.* 5")],
)
@pytest.mark.parametrize("of", ["encoder", "tower"])
def test_a_head_of_another_width_is_refused(widths: tuple[int, int], said: str, of: str) -> None:
    model = LinearModel()
    for tower in (model.audio, model.text):
        (tower.encoder if of == "encoder" else tower).width = 5
    model.head = fusion_head(*widths)
    with pytest.raises(InputError, match=said):
        MocoAtcAtm(model, CONFIG)
    model.head = fusion_head(5, 5)
    MocoAtcAtm(model, CONFIG)


def test_parts_that_do_not_say_their_width_are_taken() -> None:
    model = LinearModel()
    model.head = fusion_head(5, 7)
    torch.manual_seed(0)
    MocoAtcAtm(model, CONFIG)
