"""What of a split can be evaluated, told before anything is encoded."""

from __future__ import annotations

import pytest
import torch

from atr_moco_plugin.data import AudioTextDataset, Clip
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split import prepare_split


def test_a_split_whose_clips_all_have_all_captions_is_refused() -> None:
    """It had recalls of 100, whatever a model had learned."""

    def prepare(*labels: str) -> None:
        clips = [Clip(f"{i}.wav", (label,), None, label) for i, label in enumerate(labels)]
        prepare_split(
            AudioTextDataset("d", {"test": clips}, relevance_mode="label"),
            "test",
            lambda texts: (torch.ones(len(texts), 2).long(), torch.ones(len(texts), 2).bool()),
            batch_size=2,
            max_seconds=1.0,
            num_workers=1,
        )

    with pytest.raises(InputError, match="split 'test' has every caption of it, such as 'rain'"):
        prepare("rain", "rain", "rain")
    prepare("rain", "dog", "rain")
