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

    Token states are kept for re-ranking, each cut to its valid tokens.
    """

    def __init__(self) -> None:
        self._embeddings: list[Tensor] = []
        self._states: list[Tensor] = []
        self._input_ids: list[Tensor] = []

    def add(self, embeddings: Tensor, tokens: AudioTokens | TextTokens | None) -> None:
        """Take one batch; without ``tokens`` there is nothing to re-rank with."""
        self._embeddings.append(embeddings.detach().float())
        if tokens is None:
            return
        for row, mask in enumerate(tokens.mask):
            # Valid tokens come first, so that a slice keeps them all.
            length = int(mask.sum())
            self._states.append(tokens.states[row, :length].detach())
            if isinstance(tokens, TextTokens):
                self._input_ids.append(tokens.input_ids[row, :length])

    @property
    def embeddings(self) -> Tensor:
        """``[N, d]`` unit-norm float32."""
        return torch.cat(self._embeddings)

    def audio_tokens(self, rows: Tensor) -> AudioTokens:
        """Tokens of P items, padded to the longest of them."""
        states = [self._states[i] for i in rows.tolist()]
        return AudioTokens(pad_sequence(states, batch_first=True), _mask(states))

    def text_tokens(self, rows: Tensor) -> TextTokens:
        """Tokens of P items, padded to the longest of them."""
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
        batch_size: pairs a forward pass of the head.

    Returns:
        ``dual`` (cosines), ``reranked`` (match logit + cosine, and ``reranked_logit`` by the logit
        alone; left out when ``rerank_k`` is 0) and ``chance``, each with the keys of
        :func:`~atr_moco_plugin.evaluation.retrieval_metrics`, and the numbers of clips and
        captions.
    """
    similarity = audio.embeddings @ text.embeddings.T

    def metrics(a2t: Tensor, t2a: Tensor) -> dict[str, float]:
        if caption_to_audio is None:
            return metrics_from(a2t, t2a, relevant)
        return retrieval_metrics(a2t, caption_to_audio, caption_ids=caption_ids, t2a_scores=t2a)

    result: dict[str, Any] = {
        "clips": similarity.size(0),
        "captions": similarity.size(1),
        "dual": metrics(similarity, similarity),
        "chance": chance_metrics(relevant),
    }
    if caption_to_audio is None:
        result["dual"] = relevance_metrics(similarity, relevant)
    if rerank_k == 0:
        return result

    logits: dict[tuple[int, int], Tensor] = {}

    def match_logits(clips: Tensor, captions: Tensor) -> Tensor:
        key = (int(clips[0]), int(captions[0]))
        if key not in logits:
            pairs = text.text_tokens(captions), audio.audio_tokens(clips)
            logits[key] = model.match(*pairs)[:, 1].float()
        return logits[key]

    # Both modes need the same pairs in the same batches, so the second one finds them all.
    for name, mode in (("reranked", "logit+cosine"), ("reranked_logit", "logit")):
        scores = rerank(similarity, match_logits, rerank_k, mode=mode, batch_size=batch_size)
        result[name] = metrics(*scores)
    return {**result, "rerank_k": rerank_k}
