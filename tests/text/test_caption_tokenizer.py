"""The tokenizer of a training."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import pytest

from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.text.caption_tokenizer import caption_tokenizer

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
CLOTHO = SHARED / "captions" / "clotho" / "val.csv"


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

    with pytest.warns(UserWarning, match=r"`dataset.mix` joins captions, and \d+% .*, 24: their"):
        made(24, MixConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(24, None)
        made(64, MixConfig())


def test_a_tokenizer_that_is_made_here_says_so_of_what_it_does_not_know() -> None:
    clips = {
        split: [Clip(f"{split}{i}", (text,), "x.wav") for i, text in enumerate(texts)]
        for split, texts in {"train": ["a dog", "rain"], "test": ["a dog", "rain", "#;0"]}.items()
    }
    with pytest.warns(UserWarning, match=r"1 of 3 captions .* made of the training captions"):
        caption_tokenizer(
            None, AudioTextDataset("mine", clips), ["train", "test"], name=None, vocab_size=60,
            max_tokens=16, allow_unknown=False, note=print,
        )  # fmt: skip


@pytest.mark.skipif(not CLOTHO.is_file(), reason="Clotho's captions are not beside the repo")
def test_real_captions_that_are_cut_are_warned_of() -> None:
    with CLOTHO.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:200]
    clips = [
        Clip(row["file_name"], tuple(row[f"caption_{n}"] for n in range(1, 6)), "x") for row in rows
    ]
    dataset = AudioTextDataset("clotho", {"valid": clips})

    def made(max_tokens: int) -> None:
        caption_tokenizer(
            None, dataset, ["valid"], name=None, vocab_size=512, max_tokens=max_tokens,
            allow_unknown=False, note=print,
        )  # fmt: skip

    said = "100% of the 1,000 captions of split 'valid' are longer than `tokenizer.max_tokens`, 8:"
    with pytest.warns(UserWarning, match=said):
        made(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(96)
