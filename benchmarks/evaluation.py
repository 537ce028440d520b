"""Evaluation at the size of AudioCaps' test set: the best candidates of every query, re-ranked.

    python -m benchmarks.evaluation [--device cuda]

Token states are made up and encoding is no part of it. Captions have the lengths of AudioCaps'. A
GPU takes BERT-base and BEATs' 496 tokens of 10 s; a CPU, which would take hours for that, the sizes
of the toy recipe. Every query of the baseline costs the same, so that it is timed on one in 16.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.encoders.bert import BertConfig, BertEncoder
from atr_moco_plugin.evaluation.candidates import find_pairs, match_pairs
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import Direction
from atr_moco_plugin.evaluation.rerank import Candidates
from atr_moco_plugin.heads import AtmHead
from atr_moco_plugin.tokens import AudioTokens, TextTokens
from benchmarks import harness
from benchmarks.harness import Machine, Row

TEMPERATURE = 0.07
DIM = 256


class _Sizes(NamedTuple):
    clips: int
    captions: int
    k: int
    every: int
    audio_tokens: int
    batch_size: int
    bert: BertConfig


def _sizes(cuda: bool, tiny: bool) -> _Sizes:
    small = BertConfig(
        vocab_size=512, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=64,
    )  # fmt: skip
    if tiny:
        return _Sizes(6, 30, 4, 2, 5, 4, small)
    if cuda:
        return _Sizes(975, 4_875, 64, 16, 496, 256, BertConfig())
    return _Sizes(975, 4_875, 64, 16, 124, 64, small)


class _Model(nn.Module):
    """The part of a retrieval model that re-ranks."""

    shares_audio = True

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.encoder = BertEncoder(config)
        self.head = AtmHead(self.encoder, config.hidden_size)

    def match(
        self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor | None = None
    ) -> Tensor:
        """Matching logits ``[P, 2]``."""
        logits: Tensor = self.head(self.encoder, text, audio, audio_rows)
        return logits


def _encoded(sizes: _Sizes, device: torch.device) -> tuple[Encoded, Encoded]:
    """Clips, and captions by length; a clip's captions lie near it."""
    generator = torch.Generator().manual_seed(0)
    width, (clips, captions) = sizes.bert.hidden_size, sizes[:2]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centers = F.normalize(normal(clips, DIM), dim=1)
    near = centers[torch.arange(captions) % clips] + 0.1 * normal(captions, DIM)
    # Word pieces with [CLS] and [SEP]: 13 in the middle, a tenth above 20.
    lengths = (13 * (0.35 * normal(captions)).exp()).round().long().clamp(5, 35).sort().values
    audio, text = Encoded(), Encoded()
    for rows in torch.arange(clips).split(32):
        states = normal(len(rows), sizes.audio_tokens, width)
        mask = torch.ones(states.shape[:2], dtype=torch.bool)
        audio.add(centers[rows].to(device), AudioTokens(states, mask))
    for rows in torch.arange(captions).split(64):
        mask = torch.arange(int(lengths[rows].max())) < lengths[rows, None]
        ids = torch.randint(5, sizes.bert.vocab_size, mask.shape, generator=generator) * mask
        tokens = TextTokens(normal(*mask.shape, width), mask, ids)
        text.add(F.normalize(near[rows], dim=1).to(device), tokens)
    return audio, text


class _OneByOne:
    """ALBEF's and BLIP's loop: a pass for every query, all captions padded to the longest."""

    def __init__(self, model: _Model, audio: Encoded, text: Encoded, k: int) -> None:
        self.model, self.k = model, k
        self.cosines = audio.embeddings @ text.embeddings.T
        self.audio = audio.audio_tokens(torch.arange(self.cosines.size(0)))
        self.text = text.text_tokens(torch.arange(self.cosines.size(1)))

    def scores(self, clips: Tensor, captions: Tensor) -> Tensor:
        """``[queries, k]``: the sorted new scores of each query's top k."""
        found = [self._query(self.cosines[a], a, True) for a in clips.tolist()]
        found += [self._query(self.cosines[:, c], c, False) for c in captions.tolist()]
        return torch.stack(found)

    def _query(self, cosines: Tensor, query: int, of_clip: bool) -> Tensor:
        cosine, items = cosines.topk(self.k)
        same = torch.full_like(items, query)
        clips, captions = (same, items) if of_clip else (items, same)
        logits = self.model.match(
            TextTokens(*(x[captions] for x in self.text)),
            AudioTokens(*(x[clips] for x in self.audio)),
        )
        score = logits[:, 1] - logits[:, 0] + cosine / TEMPERATURE
        return torch.stack([score, items.to(score.dtype)])[:, score.argsort(descending=True)]


def _scores(
    found: dict[Direction, Candidates], cosines: Cosines, clips: Tensor, captions: Tensor
) -> Tensor:
    """The same from the candidates of all queries."""
    parts = []
    for (direction, (items, logits)), queries in zip(found.items(), (clips, captions), strict=True):
        blocks = [block for _, block in cosines.blocks(direction)]
        cosine = torch.cat(blocks).gather(1, items)[queries]
        score = (logits[..., 1] - logits[..., 0])[queries] + cosine / TEMPERATURE
        score, order = score.sort(dim=1, descending=True)
        parts.append(torch.stack([score, items[queries].gather(1, order).to(score.dtype)], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    sizes = _sizes(device.type == "cuda", tiny)
    torch.manual_seed(0)
    model = _Model(sizes.bert).eval().to(device)
    audio, text = _encoded(sizes, device)
    plain = _OneByOne(model, audio, text, sizes.k)
    clips = torch.arange(0, sizes.clips, sizes.every, device=device)
    captions = torch.arange(0, sizes.captions, sizes.every, device=device)

    def ours() -> tuple[Tensor, Tensor]:
        cosines = Cosines(audio, text)
        pairs = find_pairs(cosines, text, sizes.k)
        found = match_pairs(model, audio, text, pairs, batch_size=sizes.batch_size)
        return _scores(found, cosines, clips, captions).cpu(), pairs.numbers.cpu()

    plain.scores(clips[:2], captions[:2])  # warm
    start = time.perf_counter()
    found, numbers = ours()
    taken = time.perf_counter() - start
    start = time.perf_counter()
    expected = plain.scores(clips, captions).cpu()
    share = (sizes.clips + sizes.captions) / (len(clips) + len(captions))
    baseline = (time.perf_counter() - start) * share
    other = float((found[:, 1] != expected[:, 1]).double().mean())
    yield Row(
        name=f"re-ranking, {sizes.clips} x {sizes.captions:,}, top {sizes.k} of every query, width "
        f"{sizes.bert.hidden_size}, {sizes.bert.num_hidden_layers} layers, {sizes.audio_tokens} "
        f"audio tokens (baseline: one query in {sizes.every})",
        baseline_name="one query a pass, captions padded alike (BLIP)",
        ours=taken,
        baseline=baseline,
        floor=machine.floor(flops=_flops(sizes, text, numbers)),
        floor_name="matrix products: keys and values once a clip, the rest once a token of a pair",
        error=harness.largest_error(found[:, 0], expected[:, 0]),
        error_name=f"scores; {other:.2%} of the places have another item",
        target=5.0 if device.type == "cuda" else 2.0,
    )


def _flops(sizes: _Sizes, text: Encoded, numbers: Tensor) -> float:
    lengths = text.text_tokens(torch.arange(sizes.captions)).mask.sum(dim=1).cpu().double()
    of_pairs = lengths[numbers % sizes.captions]
    tokens, squares = float(of_pairs.sum()), float((of_pairs**2).sum())
    width = sizes.bert.hidden_size
    once = sizes.clips * 4 * sizes.audio_tokens * width**2
    each = tokens * (12 * width**2 + 4 * width * sizes.bert.intermediate_size)
    attention = 4 * width * (squares + tokens * sizes.audio_tokens)
    return sizes.bert.num_hidden_layers * (once + each + attention)


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
