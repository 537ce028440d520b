"""The tokenizer of a training."""

from __future__ import annotations

import warnings

import pytest

from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.text.caption_tokenizer import caption_tokenizer


def test_joined_captions_that_are_cut_are_warned_of() -> None:
    captions = ("a dog barks in the yard", "rain falls on a tin roof")
    dataset = AudioTextDataset(
        "mine", {"train": [Clip(str(i), (text,), "x.wav") for i, text in enumerate(captions)]}
    )

    def made(max_tokens: int, mix: MixConfig | None) -> None:
        caption_tokenizer(
            None, dataset, ["train"], name=None, vocab_size=120, max_tokens=max_tokens,
            allow_unknown=False, note=print, mix=mix,
        )  # fmt: skip

    with pytest.warns(UserWarning, match=r"`dataset.mix` joins captions, and \d+% .*, 12: their"):
        made(12, MixConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(12, None)
        made(64, MixConfig())
