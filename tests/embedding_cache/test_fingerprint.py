from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from scene_folders import write_classes, write_tone
from torch import nn

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.scenes import ScenesConfig, open_scenes
from atr_moco_plugin.embedding_cache.fingerprint import (
    clips_digest,
    differences,
    encoder_settings,
    texts_digest,
    weights_digest,
)


def norm() -> nn.BatchNorm1d:
    return nn.BatchNorm1d(3)


def test_equal_weights_have_equal_digests() -> None:
    assert weights_digest(norm()) == weights_digest(norm())


@pytest.mark.parametrize("name", ["weight", "running_mean", "num_batches_tracked"])
def test_every_parameter_and_buffer_counts(name: str) -> None:
    other = norm()
    with torch.no_grad():
        getattr(other, name).add_(1)
    assert weights_digest(other) != weights_digest(norm())


def test_types_and_names_of_weights_count() -> None:
    digests = {
        weights_digest(module)
        for module in (
            norm(),
            norm().double(),
            nn.Sequential(norm()),
            nn.LayerNorm(3),
            nn.Linear(2, 2, bias=False).requires_grad_(False),
        )
    }
    assert len(digests) == 5


def data(*clips: Clip, rendered: bool = False) -> AudioTextDataset:
    read = (lambda clip: None) if rendered else None
    rate = 16_000 if rendered else None
    return AudioTextDataset("d", {"train": clips}, read=read, read_rate=rate)  # type: ignore[arg-type]


def test_clips_are_those_of_keys_order_and_parts() -> None:
    a, b = Clip("a", ("x",), "a.wav"), Clip("b", ("x",), "b.wav")
    part = Clip("b", ("x",), Segment("b.wav", 0.0, 1.0))
    other = Clip("b", ("x",), Segment("b.wav", 0.5, 1.0))
    sets = [data(a, b), data(b, a), data(a), data(a, part), data(a, other)]
    assert len({clips_digest(x, "train") for x in sets}) == 5


def test_captions_count_where_clips_are_rendered() -> None:
    before, now = Clip("a", ("x",), 1), Clip("a", ("y",), 1)
    assert clips_digest(data(before), "train") == clips_digest(data(now), "train")
    digests = [clips_digest(data(clip, rendered=True), "train") for clip in (before, now)]
    assert digests[0] != digests[1]


def test_what_rendered_clips_are_made_of_counts(tmp_path: Path) -> None:
    root = write_classes(tmp_path, each=1)
    scenes = open_scenes(ScenesConfig(root=root, num_train=4, num_valid=0, num_test=0))
    before = clips_digest(scenes, "train")
    assert clips_digest(scenes, "train") == before
    write_tone(Path(scenes.clips("train")[0].source.paths[0]), 4000)
    assert clips_digest(scenes, "train") != before


def test_where_files_lie_does_not_count() -> None:
    here, there = Clip("a", ("x",), "here/a.wav"), Clip("a", ("x",), "there/a.wav")
    assert clips_digest(data(here), "train") == clips_digest(data(there), "train")


def test_texts_have_boundaries() -> None:
    assert texts_digest(["ab", "c"]) != texts_digest(["a", "bc"])
    assert texts_digest([[1, 2], [3]]) != texts_digest([[1], [2, 3]])


def test_differences_in_words() -> None:
    found = {"weights": "0" * 32, "max_seconds": 10.0, "crops": 4, "seed": 1}
    expected = {"weights": "1" * 32, "max_seconds": 5.0, "crops": 4, "seed": None}
    assert differences(found, expected) == [
        "the encoder's weights differ",
        "the longest clip in seconds: 10.0 there, 5.0 here",
        "the seed of the crops: 1 there, None here",
    ]
    assert differences(found, dict(found)) == []


@dataclass
class Settings:
    """Of an encoder."""

    depth: int = 2
    dropout: float = 0.1
    checkpoint: str | None = "there/x.pt"
    sha256: str | None = None
    inner: dict[str, object] = field(
        default_factory=lambda: {"sizes": (3, 4), "attention_dropout": 0.1, "made_by": object()}
    )


class Configured(nn.Linear):
    """An encoder with a configuration."""

    weights_option = "checkpoint"

    def __init__(self, config: object) -> None:
        super().__init__(1, 1)
        self.config = config


def test_settings_that_change_what_stands_still() -> None:
    found = {"setting depth": 2, "setting inner.sizes": "[3, 4]"}
    assert encoder_settings(Configured(Settings())) == found
    assert encoder_settings(Configured({"depth": 2, "dropout": 0.3})) == {"setting depth": 2}
    assert encoder_settings(nn.Linear(1, 1)) == encoder_settings(Configured(Settings)) == {}
