"""The pairs that the matching loss scores: each item with its own, and with hard negatives."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atr_moco_plugin.criterion.atm import hard_negatives
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.positives import PositivesMode, positive_pairs
from atr_moco_plugin.distributed import mean_weight, process_index
from atr_moco_plugin.tensors.float32 import cosines

HardSides = Literal["both", "audio", "text", "one"]
"""Hard negatives of an item: a clip and a caption, a clip, a caption, or the two in turns."""


class Pairs(NamedTuple):
    """The P pairs of this process: [matching | own text, hard audio | own audio, hard text].

    Of each of these parts there are B, so P is 3 B; with one hard negative an item it is 2 B, and
    the second part holds it.

    Attributes:
        text_rows: ``[P]`` int64, the caption of each pair.
        audio_rows: ``[P]`` int64, the clip of each pair.
        valid: ``[P]`` bool, ``False`` where an item has no hard negative and another item takes
            its place.
        weight: of the mean over the valid pairs, see
            :func:`~atr_moco_plugin.distributed.mean_weight`.
        items: B. The first B pairs match.
    """

    text_rows: Tensor
    audio_rows: Tensor
    valid: Tensor
    weight: float | Tensor
    items: int


def draw_pairs(
    a: Tensor,
    u: Tensor,
    batch: GlobalBatch,
    *,
    temperature: Tensor,
    positives: PositivesMode,
    all_processes: bool,
    seed: tuple[int, ...],
    sides: HardSides = "both",
    turn: int = 0,
) -> Pairs:
    """Draw a hard text and a hard audio, or one of the two, for each item of this process.

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
        sides: which hard negatives; with ``one`` every second item of the global batch has a hard
            audio and the others a hard text.
        turn: with ``one``, the items that had a hard audio at this number have a hard text at the
            next.
    """
    own = batch.own
    drawn_from = slice(None) if all_processes else own
    ids = batch.clip_ids[drawn_from], batch.caption_ids[drawn_from]
    same = positive_pairs(*ids, *ids, mode=positives)
    similarity = cosines(a.detach(), u.detach()) / temperature.detach()
    generator = _seeded(a.device, *seed, 0 if all_processes else process_index())
    items = torch.arange(len(same), device=a.device)
    parts: list[tuple[Tensor, Tensor]] = []  # text and audio of a negative, one of them may be -1
    if sides != "audio":
        parts.append((hard_negatives(similarity, same, generator), items))
    if sides != "text":
        parts.insert(0, (items, hard_negatives(similarity.T, same.T, generator)))
    if sides == "one":
        number = items + (0 if all_processes else own.start)
        hears = (number + turn) % 2 == 0
        hard_audio, hard_text = parts
        parts = [
            (torch.where(hears, items, hard_text[0]), torch.where(hears, hard_audio[1], items))
        ]
    exists = [(text >= 0) & (audio >= 0) for text, audio in parts]

    here = own if all_processes else slice(0, own.stop - own.start)
    if all_processes and len(batch.counts) > 1:
        # The pairs of every process are known, so its mean weighs as much as it has pairs.
        pairs_of_item = 1 + torch.stack(exists).sum(dim=0)
        weight = mean_weight(pairs_of_item[here].sum(), pairs_of_item.sum())
    else:
        weight = mean_weight(own.stop - own.start, sum(batch.counts))
    parts = [(items, items), *parts]
    valid = torch.cat([torch.ones_like(items, dtype=torch.bool)[here], *(x[here] for x in exists)])
    return Pairs(
        # Item 0 takes the place of a negative that is not there, and is not `valid`.
        torch.cat([text[here].clamp(min=0) for text, _ in parts]),
        torch.cat([audio[here].clamp(min=0) for _, audio in parts]),
        valid,
        weight,
        own.stop - own.start,
    )


def _seeded(device: torch.device, *seed: int) -> torch.Generator:
    """A generator for draws that a resumed run repeats without a random state in its checkpoint."""
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    return generator
