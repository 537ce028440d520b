"""R@k for ``Trainer``."""

from __future__ import annotations

from typing import Any

import torch
from transformers import EvalPrediction

from atr_moco_plugin.evaluation import retrieval_metrics

TRAINING_ARGUMENTS: dict[str, Any] = {
    "remove_unused_columns": False,
    "label_names": ["clip_id", "caption_id"],
}
"""What ``TrainingArguments`` must have: the collator needs columns that are no arguments of the
model, and the ids reach :func:`compute_metrics` as labels."""


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Retrieval figures in both directions over the whole evaluation set.

    Args:
        prediction: ``predictions`` are the audio and text embeddings ``[N, d]`` of N (clip,
            caption) pairs, ``label_ids`` their clip ids and caption ids ``[N]``. The embedding of
            a clip with several pairs is taken from its first one.

    Returns:
        What :func:`~atr_moco_plugin.evaluation.retrieval_metrics` returns, duplicate-aware figures
        included; ``Trainer`` puts ``eval_`` before the names, so ``eval_r_sum`` chooses the best
        checkpoint.
    """
    audio, text = (torch.from_numpy(x) for x in prediction.predictions)
    clip_ids, caption_ids = (torch.from_numpy(x) for x in prediction.label_ids)
    clips, caption_to_audio = clip_ids.unique(return_inverse=True)
    rows = torch.arange(len(clip_ids)).flip(0)
    # Written from the last row to the first, so that the first row of a clip stays.
    first = torch.zeros(len(clips), dtype=torch.int64)
    first[caption_to_audio[rows]] = rows
    similarity = audio[first] @ text.T
    return retrieval_metrics(similarity, caption_to_audio, caption_ids=caption_ids)
