"""R@k for ``Trainer``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.hosts.transformers.data.items import NO_ITEM
from atr_moco_plugin.hosts.transformers.model.evaluation import (
    check_one_clip_each,
    first_rows,
    pairs_of,
)

_ROUNDING = 0.05
"""Largest distance of two embeddings of one clip or caption as a share of their length: bfloat16
rounds by 0.004 in each layer."""

TRAINING_ARGUMENTS: dict[str, Any] = {
    "remove_unused_columns": False,
    "label_names": ["clip_id", "caption_id"],
}
"""What ``TrainingArguments`` must have: the collator needs columns that are no arguments of the
model, and the ids reach :func:`compute_metrics` as labels."""


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Retrieval figures in both directions over the whole evaluation set.

    Args:
        prediction: ``predictions`` are audio embeddings ``[N, d]`` and text embeddings ``[N, d]``
            or ``[N, K, d]``, ``label_ids`` clip ids ``[N]`` and caption ids ``[N]`` or ``[N, K]``;
            or lists with such a pair of arrays for each batch, as ``Trainer`` makes them with
            ``eval_do_concat_batches=False``. A clip in several rows is taken from the first one,
            and so is a caption whose embeddings agree within rounding.

    Returns:
        What :func:`~atr_moco_plugin.evaluation.retrieval_metrics` returns, duplicate-aware figures
        included; ``Trainer`` puts ``eval_`` before the names, so ``eval_r_sum`` chooses the best
        checkpoint. Where clips could not be used, ``skipped_rows`` says in how many rows.

    Raises:
        InputError: no clip could be used, rows of one clip have different audio, or an embedding is
            not finite.
    """
    batches = zip(_batches(prediction.predictions), _batches(prediction.label_ids), strict=True)
    audio, text, clips, captions = [], [], [], []
    skipped = 0
    for (a, u), (clip_id, caption_id) in batches:
        pairs = pairs_of(clip_id, caption_id)
        audio.append(a[pairs[0]])
        text.append(u[pairs])
        clips.append(clip_id[pairs[0]])
        captions.append(caption_id[pairs])
        skipped += int((clip_id == NO_ITEM).sum())
    clip_ids, embeddings = torch.cat(clips), torch.cat(audio).float()
    first, caption_to_audio = first_rows(clip_ids)
    if not len(first):
        raise InputError("No clip of the evaluation set could be used; see the warnings above.")
    check_one_clip_each(clip_ids, _apart(embeddings, first[caption_to_audio]))
    caption_ids = torch.cat(captions)
    similarity = _cosines(embeddings[first], torch.cat(text).float(), caption_ids)
    metrics = retrieval_metrics(similarity, caption_to_audio, caption_ids=caption_ids)
    return {**metrics, "skipped_rows": skipped} if skipped else metrics


def _cosines(audio: Tensor, text: Tensor, caption_ids: Tensor) -> Tensor:
    """Cosines ``[A, C]`` as in the recipes. A caption in several rows is taken from the first one,
    so that it ties with itself exactly."""
    first, owner = first_rows(caption_ids)
    rows = torch.where(_apart(text, first[owner]), torch.arange(len(text)), first[owner])
    clips, texts = Encoded(), Encoded(rows)
    clips.add(audio, None)
    texts.add(text, None)
    return Cosines(clips, texts).matrix()


def _apart(embeddings: Tensor, first: Tensor) -> Tensor:
    """Whether the embedding of a row differs from that of the first row of its item by more than
    rounding, as in two batches."""
    own = embeddings[first]
    apart: Tensor = (embeddings - own).norm(dim=1) > _ROUNDING * own.norm(dim=1)
    return apart


def _batches(arrays: Any) -> list[tuple[Tensor, Tensor]]:
    """The two tensors of each batch; all batches may be one."""
    batches = arrays if isinstance(arrays, list) else [arrays]
    return [(torch.from_numpy(first), torch.from_numpy(second)) for first, second in batches]
