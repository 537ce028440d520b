"""What a plan is made from: counted of data, measured of a model, found of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_AUDIO, TINY_TEXT
from tiny_bundle import make_bundle, make_public_clap
from torch import nn

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.facts import data_facts, free_ram, machine_facts, measured
from atr_moco_plugin.finetuning.measuring import gather_facts, long_caption
from atr_moco_plugin.finetuning.sizes import pair_bytes
from atr_moco_plugin.finetuning.start import find_start

CPU = torch.device("cpu")


def dataset(seconds: float | None = 2.0) -> AudioTextDataset:
    train = [
        Clip(f"{n}", (f"sound {n // 2}", "a sound"), None, seconds=seconds and seconds * (n + 1))
        for n in range(10)
    ]
    return AudioTextDataset("tiny", {"train": train, "valid": [Clip("v", ("x",), None)]})


def test_data_are_counted() -> None:
    facts = data_facts(dataset())
    assert (facts["clips"], facts["captions"], facts["distinct_captions"]) == (10, 20, 6)
    assert facts["valid_clips"] == 1 and facts["long_clip"] == pytest.approx(18.2)
    assert data_facts(dataset(None))["long_clip"] is None
    assert data_facts(dataset(), valid="nothing")["valid_clips"] == 0
    with pytest.raises(InputError, match="no split 'mine'"):
        data_facts(dataset(), train="mine")


def test_the_machine_is_looked_at() -> None:
    facts = machine_facts(CPU)
    assert facts["device"] == "cpu"
    if free_ram():
        assert 0 < machine_facts(CPU, 4)["memory"] < facts["memory"] + 2**30


def test_what_is_kept_for_the_backward_pass_is_measured() -> None:
    layer = nn.Linear(100, 100)
    x = torch.rand(8, 100)
    state = torch.get_rng_state()
    size, seconds = measured(lambda: layer(layer(x).relu()).sum(), layer.parameters())
    # The input, the output of relu, which relu and the second layer share.
    assert size == 2 * 8 * 100 * 4 and seconds > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_captions_are_measured_as_long_as_they_are() -> None:
    def captions(words: int) -> AudioTextDataset:
        texts = [("a",)] * 4 + [(" ".join(["word"] * words),)] * 96
        return AudioTextDataset(
            "d", {"train": [Clip(str(n), x, None) for n, x in enumerate(texts)]}
        )

    assert long_caption(captions(10), "train") == 15  # [CLS] and [SEP] too
    text = {"name": "bert", "config": {"pretrained": None, **TINY_TEXT}}
    options = {"audio": {"config": TINY_AUDIO}, "text": text}
    start = find_start("random", arch="small", options=options)
    short, long = (gather_facts(start, captions(words), CPU) for words in (2, 100))
    assert short.measured_tokens == 5
    assert long.measured_tokens == TINY_TEXT["max_position_embeddings"]
    assert long.text.bytes_each > 2 * short.text.bytes_each
    # The head keeps keys and values of the clip besides, whatever the caption.
    assert long.match_bytes > short.match_bytes > 3 * short.text.bytes_each
    sizes = [pair_bytes(long, 1.0, 1.0, matches=matches) for matches in (False, True)]
    assert sizes[1] - sizes[0] == long.match_bytes


@pytest.mark.parametrize("kind", ["bundle", "clap", "random"])
def test_facts_of_a_start(tmp_path: Path, kind: str) -> None:
    if kind == "random":
        text = {"name": "bert", "config": {"pretrained": None, **TINY_TEXT}}
        options = {"audio": {"config": TINY_AUDIO}, "text": text}
        start = find_start("random", arch="small", options=options)
    else:
        make = make_bundle if kind == "bundle" else make_public_clap
        start = find_start(make(tmp_path / kind))
    facts = gather_facts(start, dataset(), CPU)
    model = start.build().model
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.audio.pretrained == (kind != "random") == facts.together
    assert facts.audio.layers == 2 and facts.text.layers >= 1
    for part in (facts.audio, facts.text):
        assert part.bytes_each > 0 and part.seconds_each > 0
    # Twice the clip keeps about twice as much, and what is frozen is measured as if it trained.
    if kind == "bundle":
        frozen = start.with_options({"audio": {"freeze": "all"}})
        assert gather_facts(frozen, dataset(), CPU).audio.bytes_each == facts.audio.bytes_each
