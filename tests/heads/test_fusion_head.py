"""The matching head that takes tokens of any two encoders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.tokens import AudioTokens, TextTokens

TEXT = SimpleNamespace(width=12)


def make_head(audio_width: int = 7, **options: object) -> FusionHead:
    torch.manual_seed(0)
    return FusionHead(TEXT, audio_width, FusionHeadConfig(heads=2, **options)).eval()


def tokens(pairs: int = 3, length: int = 5, places: int = 6) -> tuple[TextTokens, AudioTokens]:
    generator = torch.Generator().manual_seed(1)
    text_mask = torch.ones(pairs, length, dtype=torch.bool)
    audio_mask = torch.ones(pairs, places, dtype=torch.bool)
    text_mask[1, 3:] = False
    audio_mask[2, 2:] = False
    return (
        TextTokens(
            torch.randn(pairs, length, 12, generator=generator),
            text_mask,
            torch.zeros(pairs, length, dtype=torch.int64),
        ),
        AudioTokens(torch.randn(pairs, places, 7, generator=generator), audio_mask),
    )


def test_a_pair_is_scored_by_its_own_row_alone() -> None:
    head, (text, audio) = make_head(), tokens()
    together = head(TEXT, text, audio)
    assert together.shape == (3, 2)
    for row in range(3):
        one = slice(row, row + 1)
        pair = TextTokens(*(x[one] for x in text)), AudioTokens(*(x[one] for x in audio))
        alone = head(TEXT, *pair)
        assert torch.allclose(alone, together[one], atol=1e-6)


def test_the_audio_counts_and_padding_does_not() -> None:
    head, (text, audio) = make_head(), tokens()
    scores = head(TEXT, text, audio)

    other = audio._replace(states=audio.states + 1.0 * ~audio.mask[..., None])
    padded = text._replace(states=text.states + 1.0 * ~text.mask[..., None])
    assert torch.equal(head(TEXT, padded, other), scores)

    louder = audio._replace(states=audio.states + 1.0 * audio.mask[..., None])
    assert ((head(TEXT, text, louder) - scores).abs().amax(dim=1) > 1e-4).all()


def test_every_parameter_gets_a_gradient() -> None:
    head, (text, audio) = make_head(layers=2).train(), tokens()
    head(TEXT, text, audio)[:, 1].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ("options", "words"), [({"layers": 0}, "layers"), ({"dropout": 1.0}, "dropout")]
)
def test_bad_sizes_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FusionHeadConfig(**options)


def test_heads_that_do_not_divide_the_width_and_foreign_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide the width"):
        FusionHead(TEXT, 7, FusionHeadConfig(heads=5))
    head, (text, audio) = make_head(), tokens()
    with pytest.raises(ValueError, match="width 7, but got 8"):
        head(TEXT, text, AudioTokens(torch.zeros(3, 6, 8), audio.mask))
    with pytest.raises(ValueError, match="3 captions and 2 clips"):
        head(TEXT, text, AudioTokens(audio.states[:2], audio.mask[:2]))


def test_clips_that_pairs_share_give_what_their_copies_give() -> None:
    head, (text, audio) = make_head(), tokens()
    rows = torch.tensor([2, 0, 2])
    copies = AudioTokens(*(x[rows] for x in audio))
    torch.testing.assert_close(head(TEXT, text, audio, rows), head(TEXT, text, copies))
