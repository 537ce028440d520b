"""The training step as BLIP's loop has it, around this package's model: the baseline of
:mod:`benchmarks.step`.

Written from the published descriptions of ALBEF and BLIP. It computes what ``moco_atc_atm``
computes, with another cost: features are made anew for the momentum copy; queues of shape ``[d,
Q]`` are cloned, concatenated to the batch and multiplied as wholes, four times; every loss has
softmaxes of its own; hard negatives are drawn item by item, each draw read back by the host; the
matching pairs, the hard clips and the hard captions go through the fusion layers in three passes,
item by item put together; and the averages are made parameter by parameter in new tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.model import RetrievalModel
from atr_moco_plugin.tokens import AudioTokens, TextTokens

MOMENTUM = 0.995
ALPHA = 0.4


class PlainBlip(nn.Module):
    """BLIP's retrieval loop.

    Args:
        model: the online model, which is trained.
        queue_size: rows of each queue; a batch must divide it.
    """

    def __init__(self, model: RetrievalModel, queue_size: int) -> None:
        super().__init__()
        self.model = model
        self.audio_m = deepcopy(model.audio).requires_grad_(False)
        self.text_m = deepcopy(model.text).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        d = model.embed_dim
        self.register_buffer("audio_queue", F.normalize(torch.randn(d, queue_size), dim=0))
        self.register_buffer("text_queue", F.normalize(torch.randn(d, queue_size), dim=0))
        self.register_buffer("ids_queue", torch.full((2, queue_size), -100))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def forward(
        self,
        audio: Mapping[str, Any],
        text: Mapping[str, Any],
        clip_ids: Tensor,
        caption_ids: Tensor,
        negatives: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """One batch; arguments and results are those of a criterion of the package.

        Args:
            audio: arguments of the audio tower.
            text: arguments of the text tower.
            clip_ids: ``[B]`` int64.
            caption_ids: ``[B]`` int64.
            negatives: the hard clip of each caption and the hard caption of each clip, ``None`` to
                draw them.
        """
        with torch.no_grad():
            self.temperature.clamp_(0.001, 0.5)
        a, audio_tokens = self.model.audio(**audio)
        u, text_tokens = self.model.text(**text)
        ids = torch.stack([clip_ids, caption_ids])
        all_ids = torch.cat([ids, self.ids_queue.clone().detach()], dim=1)
        positives = (ids[0, :, None] == all_ids[0]) | (ids[1, :, None] == all_ids[1])
        hard_targets = positives.float() / positives.float().sum(1, keepdim=True)
        with torch.no_grad():
            if self.training:
                self._momentum_update()
            a_m = self.audio_m(**audio)[0]
            u_m = self.text_m(**text)[0]
            audio_all = torch.cat([a_m.t(), self.audio_queue.clone().detach()], dim=1)
            text_all = torch.cat([u_m.t(), self.text_queue.clone().detach()], dim=1)
            a2t_m = a_m @ text_all / self.temperature
            t2a_m = u_m @ audio_all / self.temperature
            a2t_targets = ALPHA * F.softmax(a2t_m, dim=1) + (1 - ALPHA) * hard_targets
            t2a_targets = ALPHA * F.softmax(t2a_m, dim=1) + (1 - ALPHA) * hard_targets
        a2t = a @ text_all / self.temperature
        t2a = u @ audio_all / self.temperature
        loss_a2t = -torch.sum(F.log_softmax(a2t, dim=1) * a2t_targets, dim=1).mean()
        loss_t2a = -torch.sum(F.log_softmax(t2a, dim=1) * t2a_targets, dim=1).mean()
        loss_atc = (loss_a2t + loss_t2a) / 2
        if self.training:
            self._enqueue(a_m, u_m, ids)

        if negatives is None:
            negatives = self._draw(a, u, positives[:, : len(a)])
        loss_atm = self._atm(audio_tokens, text_tokens, *negatives)
        return {"loss": loss_atc + loss_atm, "loss_atc": loss_atc, "loss_atm": loss_atm}

    def _atm(
        self,
        audio: AudioTokens,
        text: TextTokens,
        hard_audio: Sequence[int],
        hard_text: Sequence[int],
    ) -> Tensor:
        audio_neg = AudioTokens(*(torch.stack([x[i] for i in hard_audio]) for x in audio))
        text_neg = TextTokens(*(torch.stack([x[i] for i in hard_text]) for x in text))
        positive = self.model.match(text, audio)
        logits = torch.cat(
            [positive, self.model.match(text, audio_neg), self.model.match(text_neg, audio)]
        )
        b = len(positive)
        labels = torch.cat([torch.ones(b), torch.zeros(2 * b)]).long().to(logits.device)
        return F.cross_entropy(logits.float(), labels)

    @torch.no_grad()
    def _draw(self, a: Tensor, u: Tensor, positives: Tensor) -> tuple[list[int], list[int]]:
        # Masked before the softmax: after it, as in BLIP, a low temperature leaves rows of zeros.
        logits = (a @ u.t() / self.temperature).float().masked_fill(positives, float("-inf"))
        weights_a2t, weights_t2a = F.softmax(logits, dim=1), F.softmax(logits.t(), dim=1)
        hard_audio = [int(torch.multinomial(weights, 1).item()) for weights in weights_t2a]
        hard_text = [int(torch.multinomial(weights, 1).item()) for weights in weights_a2t]
        return hard_audio, hard_text

    @torch.no_grad()
    def _momentum_update(self) -> None:
        pairs = ((self.model.audio, self.audio_m), (self.model.text, self.text_m))
        for online, copy in pairs:
            for p, average in zip(online.parameters(), copy.parameters(), strict=True):
                average.data = average.data * MOMENTUM + p.data * (1.0 - MOMENTUM)

    @torch.no_grad()
    def _enqueue(self, a_m: Tensor, u_m: Tensor, ids: Tensor) -> None:
        start, b = int(self.pointer), len(a_m)
        self.audio_queue[:, start : start + b] = a_m.t()
        self.text_queue[:, start : start + b] = u_m.t()
        self.ids_queue[:, start : start + b] = ids
        self.pointer[0] = (start + b) % self.ids_queue.size(1)
