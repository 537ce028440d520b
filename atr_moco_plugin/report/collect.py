"""Chooses the best and the worst retrievals of a model and a sample of its similarities."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data import Clip, RetrievalSet
from atr_moco_plugin.data.audio.read import fit_length
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.metrics import rank_block
from atr_moco_plugin.evaluation.trec import best_first
from atr_moco_plugin.report.examples import Direction, Examples, FoundItem, Matrix, Retrieval, Sound
from atr_moco_plugin.report.sound import sound_uri

Load = Callable[[Clip], NDArray[np.float32]]


@torch.no_grad()
def collect_examples(
    similarity: Tensor,
    retrieval_set: RetrievalSet,
    load: Load,
    sample_rate: int,
    *,
    split: str = "valid",
    checkpoint: str | None = None,
    per_side: int = 4,
    matrix_size: int = 40,
    top: int = 3,
    max_seconds: float = 10.0,
    seed: int = 0,
) -> Examples:
    """Choose what a report shows. The same arguments always give the same examples.

    The best query has the lowest rank of its best relevant item (ties count against it, as in the
    metrics), then the largest margin to the best other item, then the first place in the split; the
    worst is at the other end of that order. For variety, only the most extreme query of a group is
    shown, and no group is shown on both sides. A group is the captions of one clip, or with one
    caption id where captions have several clips, and the clips with one label.

    Args:
        similarity: ``[A, C]``, clips by captions, larger is closer.
        retrieval_set: the same A clips and C captions, and which belong together.
        load: reads the waveform of a clip, ``[samples]`` float32. A clip that it cannot read
            (``OSError``, ``InputError``, ``SoundFileError``) is shown without sound.
        sample_rate: of the waveforms, in Hz.
        split: the split's name.
        checkpoint: that the similarities are of, as ``retrieval.json`` names it.
        per_side: how many best and how many worst retrievals each direction has.
        matrix_size: clips in the sample of similarities.
        top: how many results are shown for each query.
        max_seconds: longer clips are cut to their beginning, in seconds.
        seed: of the draw of the sample.

    Raises:
        InputError: when the shapes differ or a similarity is not finite.
    """
    relevant = retrieval_set.relevance.cpu()
    scores = similarity.detach().cpu().double()
    if scores.shape != relevant.shape:
        raise InputError(
            f"similarity {list(scores.shape)} and relevance {list(relevant.shape)} must have the "
            "same shape [A, C], clips by captions."
        )
    if not bool(scores.isfinite().all()):
        raise InputError("similarity has values that are not finite; check the embeddings.")
    owner = retrieval_set.caption_to_audio
    by_caption = retrieval_set.caption_ids if owner is None else owner
    caption_groups: list[Hashable] = by_caption.tolist()
    clip_groups: list[Hashable] = [
        (clip.label is None, clip.label or clip.key) for clip in retrieval_set.clips
    ]
    sounds, captions = _Numbers(), _Numbers()
    text_to_audio = _direction(
        scores.T, relevant.T, caption_groups, per_side, top, captions, sounds
    )
    audio_to_text = _direction(scores, relevant, clip_groups, per_side, top, sounds, captions)
    return Examples(
        split=split,
        clips=len(retrieval_set.clips),
        sounds=tuple(
            sound_of(retrieval_set.clips[i], load, sample_rate, max_seconds) for i in sounds
        ),
        captions=tuple(retrieval_set.captions[i] for i in captions),
        text_to_audio=text_to_audio,
        audio_to_text=audio_to_text,
        matrix=_matrix(scores, relevant, retrieval_set, matrix_size, seed),
        checkpoint=checkpoint,
    )


class _Numbers(dict[int, int]):
    """Indices into the split to indices into what the page shows, in the order of asking."""

    def __missing__(self, item: int) -> int:
        return self.setdefault(item, len(self))


def _direction(
    scores: Tensor,
    relevant: Tensor,
    groups: Sequence[Hashable],
    per_side: int,
    top: int,
    shown_queries: _Numbers,
    shown_items: _Numbers,
) -> Direction:
    """The best and the worst retrievals; rows of ``scores`` ``[Q, N]`` are queries."""
    inf = float("inf")
    best_relevant = scores.masked_fill(~relevant, -inf).amax(dim=1)
    best_other = scores.masked_fill(relevant, -inf).amax(dim=1)
    ranks = rank_block(scores.double(), relevant).rank
    margins = best_relevant - best_other
    # A query without a relevant item, or with nothing else, can be answered neither well nor badly.
    judged = (relevant.any(dim=1) & ~relevant.all(dim=1)).nonzero().flatten().tolist()
    order = sorted(judged, key=lambda q: (int(ranks[q]), -float(margins[q]), q))
    best = _distinct(order, groups, per_side)
    taken = {groups[q] for q in best}
    worst = _distinct([q for q in reversed(order) if groups[q] not in taken], groups, per_side)

    def retrieval(q: int) -> Retrieval:
        return Retrieval(
            query=shown_queries[q],
            rank=int(ranks[q]),
            candidates=scores.size(1),
            margin=round(float(margins[q]), 4),
            found=_found(scores[q], relevant[q], top, shown_items),
        )

    return Direction(tuple(map(retrieval, best)), tuple(map(retrieval, worst)))


def _distinct(order: Sequence[int], groups: Sequence[Hashable], count: int) -> list[int]:
    """The first of each group, ``count`` groups at most."""
    chosen: dict[Hashable, int] = {}
    for query in order:
        chosen.setdefault(groups[query], query)
    return list(chosen.values())[:count]


def _found(
    scores: Tensor, relevant: Tensor, top: int, shown_items: _Numbers
) -> tuple[FoundItem, ...]:
    """The first results and the best relevant one; of equal scores, the irrelevant come first."""
    order = best_first(scores[None], relevant[None], len(scores))[0]
    places = set(range(min(top, len(order))))
    places.add(int(relevant[order].nonzero()[0]))
    return tuple(
        FoundItem(
            item=shown_items[int(order[place])],
            place=place + 1,
            score=round(float(scores[order[place]]), 4),
            relevant=bool(relevant[order[place]]),
        )
        for place in sorted(places)
    )


def sound_of(clip: Clip, load: Load, sample_rate: int, max_seconds: float) -> Sound:
    """A clip to be played in a page.

    Args:
        clip: the clip.
        load: reads its waveform, see :func:`collect_examples`.
        sample_rate: of the waveform, in Hz.
        max_seconds: of a longer clip its beginning is taken.
    """
    uri = note = None
    try:
        waveform = load(clip)
        kept = fit_length(waveform, round(max_seconds * sample_rate))
        uri = sound_uri(kept, sample_rate)
        if len(kept) < len(waveform):
            note = f"the first {max_seconds:g} s of {len(waveform) / sample_rate:.1f} s"
    except (OSError, InputError, soundfile.SoundFileError) as ex:
        note = f"no sound: {' '.join(str(ex).split())}"
    return Sound(clip.key, clip.label, clip.captions, uri, note)


def _matrix(
    scores: Tensor, relevant: Tensor, retrieval_set: RetrievalSet, size: int, seed: int
) -> Matrix:
    with_caption = relevant.any(dim=1).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    drawn = with_caption[torch.randperm(len(with_caption), generator=generator)[:size]].tolist()
    rows = sorted(drawn, key=lambda a: (retrieval_set.clips[a].label or "", a))
    columns = list(dict.fromkeys(int(relevant[a].nonzero()[0]) for a in rows))
    values = scores[rows][:, columns].tolist()
    return Matrix(
        rows=tuple(retrieval_set.clips[a].key for a in rows),
        columns=tuple(retrieval_set.captions[c] for c in columns),
        values=tuple(tuple(round(value, 4) for value in row) for row in values),
        relevant=tuple(map(tuple, relevant[rows][:, columns].tolist())),
    )
