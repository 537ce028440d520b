"""Which pairs the matching loss scores."""

from __future__ import annotations

import pytest
import torch

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.pairs import HardSides, Pairs, draw_pairs


def drawn(sides: HardSides, turn: int = 0, lonely: bool = False, b: int = 6) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    a, u = torch.nn.functional.normalize(torch.randn(2, b, 5, generator=generator), dim=2)
    clips = torch.arange(b) if not lonely else torch.zeros(b, dtype=torch.int64)
    batch = GlobalBatch([b], a, u, clips, torch.arange(b))
    return draw_pairs(
        a, u, batch,
        temperature=torch.tensor([0.1]), positives="clip", all_processes=False,
        seed=(0, 1, 2), sides=sides, turn=turn,
    )  # fmt: skip


def test_one_side_alone_keeps_its_part() -> None:
    both, text = drawn("both"), drawn("text")
    assert text.text_rows.tolist() == [*range(6), *both.text_rows[12:].tolist()]
    assert text.audio_rows.tolist() == [*range(6)] * 2
    audio = drawn("audio")
    assert audio.text_rows.tolist() == [*range(6)] * 2
    assert (audio.audio_rows[6:] != torch.arange(6)).all()
    for pairs in (both, text, audio):
        assert pairs.items == 6 and pairs.valid.all() and pairs.weight == 1


def test_one_takes_turns() -> None:
    row = torch.arange(6)
    for turn in (0, 1):
        pairs, both = drawn("one", turn), drawn("both")
        text, audio = pairs.text_rows[6:], pairs.audio_rows[6:]
        hears = (row + turn) % 2 == 0
        assert torch.equal(text == row, hears) and torch.equal(audio != row, hears)
        assert torch.equal(audio[hears], both.audio_rows[6:12][hears])
        assert torch.equal(text[~hears], both.text_rows[12:][~hears])


@pytest.mark.parametrize("sides", ["both", "audio", "text", "one"])
def test_items_without_a_negative_are_left_out(sides: HardSides) -> None:
    pairs = drawn(sides, lonely=True)
    assert pairs.valid.tolist() == [True] * 6 + [False] * (12 if sides == "both" else 6)
    assert pairs.text_rows.min() >= 0 and pairs.audio_rows.min() >= 0


@pytest.mark.parametrize("fusion", ["blip", "albef"])
@pytest.mark.parametrize("sides", ["both", "audio", "text", "one"])
@pytest.mark.parametrize("chunk_size", [1, 3, 4])
def test_chunks_score_the_same(tiny_model, tiny_batch, fusion, sides, chunk_size) -> None:
    found = []
    for size in (None, chunk_size):
        config = MocoAtcAtmConfig(queue_size=8, atm_start=0, atm_pairs=sides)
        criterion = MocoAtcAtm(tiny_model(fusion=fusion), config).train()
        criterion.chunk_size = size
        out = criterion(**tiny_batch(b=7))
        out["loss"].backward()
        grad = criterion.model.head.classifier.weight.grad
        found.append((out["loss_atm"], out["atm_accuracy"], grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
