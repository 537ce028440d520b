"""Retrieval on one split: what is encoded, and the scores.

Validation, the end of a training run and the evaluation recipe all take this path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.audio_batches import AudioInputs, ClipInputs, audio_batches
from atr_moco_plugin.evaluation.candidates import find_pairs, match_pairs
from atr_moco_plugin.evaluation.captions import CaptionBatches, distinct_captions
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encode import (
    Advance,
    encode_captions,
    encode_shared,
    no_progress,
    own_share,
)
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import Direction
from atr_moco_plugin.evaluation.rerank import Candidates
from atr_moco_plugin.learned_distance import LearnedDistance

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows how far something is, given what is done and the number of its items."""


@dataclass(frozen=True)
class Split:
    """A split that is evaluated, and how its clips and captions are read.

    Attributes:
        dataset: the data set.
        name: the split's name in it.
        retrieval_set: clips, captions and what counts as a hit.
        captions: the captions, tokenised, in batches.
        batch_size: clips, captions or pairs a forward pass on each process.
        max_seconds: a clip is taken whole up to this length, of a longer one its beginning.
        num_workers: threads that decode audio ahead on each process.
        unreadable: how many clips of the split were left out.
        audio_inputs: from waveforms and lengths to the arguments of the audio tower; None where it
            takes them as they are.
        clip_inputs: in place of all audio, such as the cached outputs of a frozen encoder; None
            where clips are decoded.
    """

    dataset: AudioTextDataset
    name: str
    retrieval_set: RetrievalSet
    captions: CaptionBatches
    batch_size: int
    max_seconds: float
    num_workers: int
    unreadable: int = 0
    audio_inputs: AudioInputs | None = None
    clip_inputs: ClipInputs | None = None


def prepare_split(
    dataset: AudioTextDataset,
    name: str,
    to_tokens: Tokenize,
    *,
    batch_size: int,
    max_seconds: float,
    num_workers: int,
    without: Collection[str] = (),
    audio_inputs: AudioInputs | None = None,
    clip_inputs: ClipInputs | None = None,
) -> Split:
    """Look through the captions of a split and tokenise them.

    Args:
        dataset: the data set.
        name: the split's name in it.
        to_tokens: the tokenizer.
        batch_size: see :class:`Split`, like the rest.
        max_seconds: longest clip.
        num_workers: threads.
        without: keys of clips that are left out.
        audio_inputs: see :class:`Split`.
        clip_inputs: see :class:`Split`.

    Raises:
        InputError: for a split that is not there, has a single clip, or all captions at every clip,
            and for a caption without a word.
    """
    retrieval_set = dataset.retrieval_set(name, without=without)
    if len(retrieval_set.clips) < 2:
        raise InputError(
            f"{dataset.name} split {name!r} has a single clip to evaluate on, so every ranking is "
            "right; give it two or more."
        )
    relevant = retrieval_set.label_relevance
    if relevant is not None and bool(relevant.all()):
        raise InputError(
            f"Every clip of {dataset.name} split {name!r} has every caption of it, such as "
            f"{retrieval_set.captions[0]!r}, so every ranking is right; look at how captions were "
            "found, and give clips that differ in theirs."
        )
    try:
        captions = distinct_captions(*to_tokens(retrieval_set.captions), batch_size)
    except InputError as ex:
        raise InputError(f"{dataset.name} split {name!r}: {ex}") from ex
    return Split(
        dataset,
        name,
        retrieval_set,
        captions,
        batch_size,
        max_seconds,
        num_workers,
        len(without),
        audio_inputs,
        clip_inputs,
    )


class Scores(NamedTuple):
    """What a model makes of a split.

    Attributes:
        audio: the clips, encoded; the embeddings are the same on every process.
        text: the captions.
        cosines: of all clips and captions.
        candidates: matches of each query's best candidates; None where nothing is re-ranked.
    """

    audio: Encoded
    text: Encoded
    cosines: Cosines
    candidates: dict[Direction, Candidates] | None

    @property
    def embeddings(self) -> dict[str, Tensor]:
        """``audio`` [A, d] and ``text`` [C, d], unit-norm float32: what the cosines are of."""
        return {"audio": self.audio.embeddings, "text": self.text.embeddings}

    @property
    def plain(self) -> dict[str, Tensor]:
        """The same of the towers, before a learned distance."""
        return {"audio": self.audio.plain, "text": self.text.plain}


def score_split(
    model: Any,
    split: Split,
    device: torch.device,
    rerank_k: Sequence[int],
    progress: Progress = lambda name, total: nullcontext(no_progress),
    *,
    factor: Tensor | None = None,
) -> Scores:
    """Encode and match the clips and captions of a split, shared out over all processes.

    Args:
        model: the model, in eval mode.
        split: the split.
        device: where the model is.
        rerank_k: numbers of candidates of each query that the matching head re-ranks.
        progress: shows how far each stage is.
        factor: of the distance that the criterion has learned, by which is ranked in place of the
            cosine; see :mod:`atr_moco_plugin.learned_distance`.

    Raises:
        InputError: on every process, when one of them cannot read a clip.
    """
    clips, keep = split.retrieval_set.clips, bool(rerank_k)
    with progress("Encoding captions", len(torch.unique(split.captions.rows))) as advance:
        text = encode_captions(
            model,
            split.captions,
            device,
            keep_tokens=keep,
            distance=None if factor is None else LearnedDistance(factor, "text").to(device),
            advance=advance,
        )
    own, total = own_share(clips, split.batch_size)
    with progress("Encoding clips", len(clips)) as advance:
        audio = encode_shared(
            model.audio,
            audio_batches(
                split.dataset,
                own,
                device,
                batch_size=split.batch_size,
                max_seconds=split.max_seconds,
                num_workers=split.num_workers,
                audio_inputs=split.audio_inputs,
                clip_inputs=split.clip_inputs,
            ),
            total,
            keep_tokens=keep,
            gather_states=False,
            distance=None if factor is None else LearnedDistance(factor, "audio").to(device),
            advance=advance,
        )
    cosines = Cosines(audio, text)
    if not rerank_k:
        return Scores(audio, text, cosines, None)
    pairs = find_pairs(cosines, text, max(rerank_k))
    own_pairs = torch.isin(pairs.numbers.cpu() // len(text.distinct), audio.kept).sum()
    with progress("Re-ranking pairs", int(own_pairs)) as advance:
        candidates = match_pairs(
            model, audio, text, pairs, batch_size=split.batch_size, advance=advance
        )
    return Scores(audio, text, cosines, candidates)
