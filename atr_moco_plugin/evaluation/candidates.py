"""The pairs of a clip and a caption that re-ranking needs, scored by the matching head."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from atr_moco_plugin.contracts import MatchingModel
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encode import Advance, no_progress
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, Direction
from atr_moco_plugin.evaluation.rerank import Candidates, top_candidates
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens


class Pairs(NamedTuple):
    """P distinct pairs of a clip and a distinct caption, for the matching head to score.

    Attributes:
        numbers: ``[P]`` int64, ascending, ``clip * U + row`` with U distinct captions.
        items: the K best items of each query by cosine, ``[queries, K]`` int64, by direction.
        places: where the pair of each of them is in ``numbers``, ``[queries, K]`` int64.
    """

    numbers: Tensor
    items: dict[Direction, Tensor]
    places: dict[Direction, Tensor]


def find_pairs(cosines: Cosines, text: Encoded, k: int) -> Pairs:
    """The pairs that re-ranking the top k of every query needs, each once.

    Args:
        cosines: of all clips and captions.
        text: the encoded captions.
        k: candidates of each query; more than there are means all.

    Raises:
        InputError: when ``k`` is not positive.
    """
    if k < 1:
        raise InputError(f"Re-ranking needs k >= 1, got {k}.")
    items = {
        direction: torch.cat([top_candidates(x, k) for _, x in cosines.blocks(direction)])
        for direction in DIRECTIONS
    }
    distinct, rows = len(text.distinct), text.rows
    clips = torch.arange(len(items["a2t"]), device=rows.device)
    pairs: dict[Direction, Tensor] = {
        "a2t": clips[:, None] * distinct + rows[items["a2t"]],
        "t2a": items["t2a"] * distinct + rows[:, None],
    }
    numbers = torch.unique(torch.cat([x.flatten() for x in pairs.values()]))
    places = {direction: torch.searchsorted(numbers, x) for direction, x in pairs.items()}
    return Pairs(numbers, items, places)


@torch.no_grad()
def match_pairs(
    model: MatchingModel,
    audio: Encoded,
    text: Encoded,
    pairs: Pairs,
    *,
    batch_size: int,
    advance: Advance = no_progress,
) -> dict[Direction, Candidates]:
    """Ask the matching head about every pair once.

    Where each process has only the tokens of its own clips, it scores the pairs of these clips,
    and all processes get all logits.

    Args:
        model: a model in eval mode.
        audio: the clips, with tokens.
        text: the captions, with tokens.
        pairs: from :func:`find_pairs`, the same on every process.
        batch_size: most pairs of a forward pass; all pairs of a pass have the same clip.
        advance: called after every pass with its number of pairs.

    Returns:
        Candidates of all queries, by direction.

    Raises:
        InputError: when tokens were not kept, or a logit is not finite.
    """
    distinct = len(text.distinct)
    numbers = pairs.numbers.cpu()
    clip, row = numbers // distinct, numbers % distinct
    own = torch.isin(clip, audio.kept).nonzero().squeeze(1)
    if len(text.kept) < distinct or not (audio.sharded or len(own) == len(numbers)):
        raise InputError(
            "Re-ranking needs the token states of every clip and caption, but they were not kept."
        )
    logits = torch.zeros(len(numbers), 2, device=pairs.numbers.device)
    # A clip at a time: its tokens are prepared once for all of a pass. Its captions come in the
    # order of their numbers, which is the order of their lengths.
    _, counts = torch.unique_consecutive(clip[own], return_counts=True)
    for of_clip in torch.split(own, counts.tolist()):
        tokens = audio.audio_tokens(clip[of_clip[:1]])
        for part in torch.split(of_clip, batch_size):
            found = _match_clip(model, text.text_tokens(row[part]), tokens)
            logits[part.to(logits.device)] = found.float()
            advance(len(part))
    if audio.sharded:
        # Only one process has a pair's logits, the others have zeros, and adding zeros is exact.
        dist.all_reduce(logits)
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        raise InputError(f"The matching logits of {broken} of {len(logits)} pairs are not finite.")
    return {
        direction: Candidates(items, logits[pairs.places[direction]])
        for direction, items in pairs.items.items()
    }


def _match_clip(model: MatchingModel, text: TextTokens, audio: AudioTokens) -> Tensor:
    """Logits of captions with one clip. A head that shares audio projects the clip once."""
    rows = torch.zeros(len(text.mask), dtype=torch.int64, device=text.mask.device)
    if getattr(model, "shares_audio", False):
        return model.match(text, audio, rows)
    return model.match(text, take_tokens(audio, rows))
