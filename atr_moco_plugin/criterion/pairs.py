"""The pairs that the matching loss scores: each item with its own, and with two hard negatives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atr_moco_plugin.criterion.atm import hard_negatives
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.positives import PositivesMode, positive_pairs
from atr_moco_plugin.distributed import mean_weight, process_index
from atr_moco_plugin.tensors.float32 import cosines


class Pairs(NamedTuple):
    """The 3 B pairs of this process: [matching | own text, hard audio | own audio, hard text].

    Attributes:
        text_rows: ``[3 B]`` int64, the caption of each pair.
        audio_rows: ``[3 B]`` int64, the clip of each pair.
        valid: ``[3 B]`` bool, ``False`` where an item has no hard negative and another item takes
            its place.
        weight: of the mean over the valid pairs, see
            :func:`~atr_moco_plugin.distributed.mean_weight`.
    """

    text_rows: Tensor
    audio_rows: Tensor
    valid: Tensor
    weight: float | Tensor


def draw_pairs(
    a: Tensor,
    u: Tensor,
    batch: GlobalBatch,
    *,
    temperature: Tensor,
    positives: PositivesMode,
    all_processes: bool,
    seed: tuple[int, ...],
) -> Pairs:
    """Draw a hard text and a hard audio for each item of this process.

    With ``all_processes`` every process draws for the global batch with one seed and keeps its own
    rows, so the draws do not depend on how the batch is split over processes.

    Args:
        a: ``[M, d]`` online audio embeddings to draw from: of this process, or of all.
        u: ``[M, d]`` online text embeddings.
        batch: the items of all processes.
        temperature: tau, one element.
        positives: which items are never drawn for each other.
        all_processes: whether ``a`` and ``u`` are those of all processes.
        seed: integers of 0 and above, which the draws depend on and nothing else.
    """
    own = batch.own
    drawn_from = slice(None) if all_processes else own
    ids = batch.clip_ids[drawn_from], batch.caption_ids[drawn_from]
    same = positive_pairs(*ids, *ids, mode=positives)
    similarity = cosines(a.detach(), u.detach()) / temperature.detach()
    generator = _seeded(a.device, *seed, 0 if all_processes else process_index())
    hard_text = hard_negatives(similarity, same, generator)
    hard_audio = hard_negatives(similarity.T, same.T, generator)

    here = own if all_processes else slice(0, own.stop - own.start)
    if all_processes and len(batch.counts) > 1:
        # The pairs of every process are known, so its mean weighs as much as it has pairs.
        pairs_of_item = 1 + (hard_text >= 0).long() + (hard_audio >= 0).long()
        weight = mean_weight(pairs_of_item[here].sum(), pairs_of_item.sum())
    else:
        weight = mean_weight(own.stop - own.start, sum(batch.counts))
    hard_text, hard_audio = hard_text[here], hard_audio[here]
    row = torch.arange(here.start, here.stop, device=a.device)
    return Pairs(
        # Item 0 takes the place of a negative that is not there, and is not `valid`.
        torch.cat([row, row, hard_text.clamp(min=0)]),
        torch.cat([row, hard_audio.clamp(min=0), row]),
        torch.cat([torch.ones_like(row, dtype=torch.bool), hard_audio >= 0, hard_text >= 0]),
        weight,
    )


def _seeded(device: torch.device, *seed: int) -> torch.Generator:
    """A generator for draws that a resumed run repeats without a random state in its checkpoint."""
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    return generator
