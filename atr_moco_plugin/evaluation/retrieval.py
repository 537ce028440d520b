"""Evaluate a model on clips and captions: embed once, score with cosines, re-rank with the head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import pad_sequence

from atr_moco_plugin.encoders.tokens import AudioTokens, TextTokens
from atr_moco_plugin.evaluation.chance import chance_metrics
from atr_moco_plugin.evaluation.metrics import metrics_from, relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.rerank import rerank


class Encoded:
    """Embeddings and token states of the items of one modality, collected batch by batch.

    Token states are kept for re-ranking, without their padding, on the device they came from:
    1.5 MB a clip of 10 s in float32 (496 tokens of width 768), 1.5 GB for a test set of 1,000.
    """

    def __init__(self) -> None:
        self._embeddings: list[Tensor] = []
        self._states: list[Tensor] = []
        self._input_ids: list[Tensor] = []

    def add(self, embeddings: Tensor, tokens: AudioTokens | TextTokens | None) -> None:
        """Take one batch.

        Args:
            embeddings: ``[B, d]`` unit-norm.
            tokens: of the same B items, the valid ones first in each row; ``None`` where there is
                nothing to re-rank.
        """
        self._embeddings.append(embeddings.detach().float())
        if tokens is None:
            return
        for row, length in enumerate(tokens.mask.sum(dim=1).tolist()):
            # Cloned, since a slice would keep the padding of the whole batch alive.
            self._states.append(tokens.states[row, :length].detach().clone())
            if isinstance(tokens, TextTokens):
                self._input_ids.append(tokens.input_ids[row, :length].clone())

    @property
    def embeddings(self) -> Tensor:
        """``[N, d]`` unit-norm float32.

        Raises:
            ValueError: when no batch was added.
        """
        if not self._embeddings:
            raise ValueError("Nothing was encoded; the split has no clips or no captions.")
        return torch.cat(self._embeddings)

    @property
    def has_tokens(self) -> bool:
        """Whether every item came with its tokens."""
        return len(self._states) == sum(map(len, self._embeddings))

    def audio_tokens(self, rows: Tensor) -> AudioTokens:
        """Tokens of the P clips at ``rows`` (``[P]`` int64), padded to the longest of them."""
        states = [self._states[i] for i in rows.tolist()]
        return AudioTokens(pad_sequence(states, batch_first=True), _mask(states))

    def text_tokens(self, rows: Tensor) -> TextTokens:
        """Tokens of the P captions at ``rows`` (``[P]`` int64), padded to the longest of them."""
        states = [self._states[i] for i in rows.tolist()]
        input_ids = pad_sequence([self._input_ids[i] for i in rows.tolist()], batch_first=True)
        return TextTokens(pad_sequence(states, batch_first=True), _mask(states), input_ids)


def _mask(states: list[Tensor]) -> Tensor:
    return pad_sequence(
        [torch.ones(len(x), dtype=torch.bool, device=x.device) for x in states], batch_first=True
    )


@torch.no_grad()
def encode_text(
    model: Module, batches: Iterable[tuple[Tensor, Tensor]], *, keep_tokens: bool
) -> Encoded:
    """Embed captions.

    Args:
        model: a :class:`~atr_moco_plugin.model.RetrievalModel` in eval mode.
        batches: ``(input_ids [B, L], mask [B, L])`` on the model's device.
        keep_tokens: keep the token states for re-ranking.

    Returns:
        The embeddings, and the tokens when asked for.
    """
    encoded = Encoded()
    for input_ids, mask in batches:
        embeddings, tokens = model.text(input_ids, mask)
        encoded.add(embeddings, tokens if keep_tokens else None)
    return encoded


@torch.no_grad()
def evaluate_retrieval(
    model: Module,
    audio: Encoded,
    text: Encoded,
    relevant: Tensor,
    *,
    caption_to_audio: Tensor | None = None,
    caption_ids: Tensor | None = None,
    rerank_k: int = 0,
    temperature: float = 0.07,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Both directions, dual-encoder and re-ranked, with chance beside.

    Args:
        model: a model in eval mode, whose ``match`` re-ranks.
        audio: A encoded clips.
        text: C encoded captions.
        relevant: ``[A, C]`` bool, what counts as a hit.
        caption_to_audio: ``[C]`` the clip of each caption, where it has one alone; adds the
            duplicate-aware figures when ``caption_ids`` is given too.
        caption_ids: ``[C]`` int64.
        rerank_k: candidates of each query that are re-ranked, 0 for none.
        temperature: the trained temperature tau, which weighs cosine against match for re-ranking.
        batch_size: pairs a forward pass of the head.

    Returns:
        ``dual`` (cosines), three re-rankings and ``chance``, each with the keys of
        :func:`~atr_moco_plugin.evaluation.metrics_from`; ``clips`` and ``captions``, their
        numbers; ``rerank_k``. With ``caption_to_audio`` all but ``chance`` have the keys of
        :func:`~atr_moco_plugin.evaluation.retrieval_metrics`, without it ``dual`` has those of
        :func:`~atr_moco_plugin.evaluation.relevance_metrics`. The re-rankings and ``rerank_k``
        are left out when it is 0. They score a candidate with

        * ``reranked``: log-odds of a match + cosine / tau, the sum of the two log-probability
          ratios that the matching and the contrastive loss train (ours);
        * ``reranked_blip``: match logit + cosine (BLIP, Li et al. 2022);
        * ``reranked_albef``: the match logit alone (ALBEF, Li et al. 2021).

        The match logit of the last two is one of a pair of logits, which the loss leaves free to
        shift together from pair to pair; the log-odds are their difference, which it does not.

    Raises:
        ValueError: when nothing was encoded, ``relevant`` has another shape, there are no tokens
            to re-rank with, or an embedding or a logit is not finite.
    """
    # Under bf16 autocast cosines would be rounded to ties, which count against the model.
    with torch.autocast(audio.embeddings.device.type, enabled=False):
        similarity = audio.embeddings @ text.embeddings.T
    if relevant.shape != similarity.shape:
        raise ValueError(
            f"`relevant` has shape {list(relevant.shape)}, but there are {similarity.size(0)} "
            f"clips and {similarity.size(1)} captions."
        )

    def metrics(a2t: Tensor, t2a: Tensor) -> dict[str, float]:
        if caption_to_audio is None:
            return metrics_from(a2t, t2a, relevant)
        return retrieval_metrics(a2t, caption_to_audio, caption_ids=caption_ids, t2a_scores=t2a)

    result: dict[str, Any] = {
        "clips": similarity.size(0),
        "captions": similarity.size(1),
        "dual": (
            relevance_metrics(similarity, relevant)
            if caption_to_audio is None
            else metrics(similarity, similarity)
        ),
        "chance": chance_metrics(relevant),
    }
    if rerank_k == 0:
        return result
    if not (audio.has_tokens and text.has_tokens):
        raise ValueError(
            f"`rerank_k` is {rerank_k}, but token states were not kept for every clip and "
            "caption; encode them with their tokens, or set `rerank_k` to 0."
        )

    logits = torch.full((*similarity.shape, 2), float("nan"), device=similarity.device)

    def score(clips: Tensor, captions: Tensor) -> Tensor:
        pairs = text.text_tokens(captions), audio.audio_tokens(clips)
        logits[clips, captions] = model.match(*pairs).float()
        no, yes = logits[clips, captions].unbind(-1)
        return yes - no + similarity[clips, captions] / temperature

    def look_up(clips: Tensor, captions: Tensor) -> Tensor:
        return logits[clips, captions, 1]

    # The cosines alone decide which pairs are needed, so the others find them all scored.
    for name, score_pairs, mode in (
        ("reranked", score, "logit"),
        ("reranked_blip", look_up, "logit+cosine"),
        ("reranked_albef", look_up, "logit"),
    ):
        levels = rerank(similarity, score_pairs, rerank_k, mode=mode, batch_size=batch_size)
        result[name] = metrics(*levels)
    return {**result, "rerank_k": rerank_k}
