"""R@k from the arrays that ``Trainer`` collects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    EvalPrediction,
)

from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.hosts.transformers import (
    compute_metrics,
)


def test_metrics_take_each_clip_once() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(6, 5, generator=generator) for _ in range(2))
    clip_ids = torch.tensor([7, 3, 7, 3, 9, 7]) + 2**62
    caption_ids = torch.tensor([0, 1, 2, 3, 1, 4])
    audio[2] = audio[5] = audio[0]
    audio[3] = audio[1]
    metrics = compute_metrics(
        EvalPrediction((audio.numpy(), text.numpy()), (clip_ids.numpy(), caption_ids.numpy()))
    )
    expected = retrieval_metrics(
        audio[[1, 0, 4]] @ text.T, torch.tensor([1, 0, 1, 0, 2, 1]), caption_ids=caption_ids
    )
    assert metrics == expected and metrics["clips"] == 3


def test_metrics_of_clips_with_several_captions() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(n, 5, generator=generator).numpy() for n in (3, 6))
    pairs = np.array([7, 7, 7, 3, 3, 9]), np.array([0, 1, 2, 3, 1, 4])
    flat = EvalPrediction((audio[[0, 0, 0, 1, 1, 2]], text), pairs)
    wide = np.full((4, 3, 5), -100, np.float32)
    wide[[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]] = text
    ids = np.array([[0, 1, 2], [3, 1, -100], [4, -100, -100], [5, 6, 7]])
    clips = np.array([7, 3, 9, -100])  # the last could not be used
    every = np.concatenate([audio, np.zeros((1, 5), np.float32)])
    found = compute_metrics(EvalPrediction((every, wide), (clips, ids)))
    assert found == {**compute_metrics(flat), "skipped_rows": 1}
    # As Trainer hands them over with eval_do_concat_batches=False.
    parts = (slice(0, 1), slice(1, 2), slice(2, 4))
    batches = [(every[at], wide[at]) for at in parts]
    labels = [(clips[at], ids[at]) for at in parts]
    assert compute_metrics(EvalPrediction(batches, labels)) == found
    with pytest.raises(ValueError, match="No clip of the evaluation set"):
        compute_metrics(EvalPrediction((every[3:], wide[3:]), (clips[3:], ids[3:])))


def test_equal_captions_tie_however_their_batches_rounded_them() -> None:
    """Rounding decided between two clips with one caption: 27 % of them were found."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    audio = unit(torch.randn(100, 16, generator=generator), dim=1).repeat_interleave(2, 0)
    clip_ids, caption_ids = torch.arange(200), torch.arange(200) // 2

    def figures(text: torch.Tensor) -> dict[str, float]:
        ids = (clip_ids.numpy(), caption_ids.numpy())
        return compute_metrics(EvalPrediction((audio.numpy(), text.numpy()), ids))

    rounded = unit(audio + 1e-7 * torch.randn(audio.shape, generator=generator), dim=1)
    found = figures(audio)
    assert found["a2t_r1"] == 0.0 and found["a2t_r1_dup"] == 100.0
    assert figures(rounded) == found
    other = audio.clone()
    other[1::2] = unit(torch.randn(100, 16, generator=generator), dim=1)
    assert figures(other)["a2t_r1"] == 50.0  # another text under one id stays another


def test_embeddings_that_are_not_finite_are_refused() -> None:
    audio, ids = np.eye(4, dtype=np.float32), np.arange(4)
    text = audio.copy()
    text[2] = np.nan
    with pytest.raises(ValueError, match="embeddings of 1 of 4 captions are not finite"):
        compute_metrics(EvalPrediction((audio, text), (ids, ids)))
