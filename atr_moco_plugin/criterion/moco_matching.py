"""The full momentum criterion: contrastive and matching loss.

One training step, top to bottom, is :meth:`MocoAtcAtm.forward`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.atm import atm_loss, hard_negatives
from atr_moco_plugin.criterion.baseline import Inputs
from atr_moco_plugin.criterion.config import AtcConfig, MocoAtcAtmConfig
from atr_moco_plugin.criterion.moco import MocoAtc
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.distributed import (
    gather,
    gather_tokens,
    mean_weight,
    rank,
    sizes,
    world_size,
)
from atr_moco_plugin.encoders.tokens import AudioTokens, TextTokens


class MocoAtcAtm(MocoAtc):
    """The full criterion: :class:`MocoAtc` and the matching loss on hard negatives.

    Example:
        >>> criterion = MocoAtcAtm(model, MocoAtcAtmConfig(queue_size=16_384))  # doctest: +SKIP
        >>> criterion.attach(optimizer)  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     losses = criterion(batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
        ...     losses["loss"].backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()

    Args:
        model: a model with ``audio``, ``text`` and ``match``.
        config: the options.
    """

    config_class: ClassVar[type[AtcConfig]] = MocoAtcAtmConfig

    measures: ClassVar[tuple[str, ...]] = (*MocoAtc.measures, "loss_atm", "atm_accuracy")

    config: MocoAtcAtmConfig

    def __init__(self, model: nn.Module, config: MocoAtcAtmConfig) -> None:
        super().__init__(model, config)
        self._draws = 0  # forward passes since the last optimizer step
        self._generator: torch.Generator | None = None

    def on_optimizer_step(self) -> None:
        """See :meth:`MocoAtc.on_optimizer_step`."""
        super().on_optimizer_step()
        self._draws = 0

    def on_step_left_out(self) -> None:
        """Begin the draws of this step anew, as a run does that resumes here."""
        super().on_step_left_out()
        self._draws = 0

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`MocoAtc.forward`; adds ``loss_atm`` and ``atm_accuracy``."""
        self._start_pass()
        audio = self._prepare(audio)
        a, audio_tokens = self.model.audio(**audio)
        u, text_tokens = self.model.text(**text)
        counts = sizes(len(a), a.device)
        loss_atc = self._atc(a, u, audio, text, clip_ids, caption_ids, counts)
        loss_atm, accuracy = self._atm(
            a, u, audio_tokens, text_tokens, clip_ids, caption_ids, counts
        )
        return {
            "loss": self.config.atc_weight * loss_atc + self.config.atm_weight * loss_atm,
            "loss_atm": loss_atm.detach(),
            "atm_accuracy": accuracy,
            **self._measures(loss_atc),
        }

    def _atm(
        self,
        a: Tensor,
        u: Tensor,
        audio: AudioTokens,
        text: TextTokens,
        clip_ids: Tensor,
        caption_ids: Tensor,
        counts: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Matching loss over B matching pairs and two hard negatives of each item."""
        b, first_row = len(a), 0
        all_ranks = self.config.negatives == "all_ranks" and world_size() > 1
        if all_ranks:
            # Every rank draws for the global batch with one seed and keeps its own rows, so the
            # draws do not depend on how the batch is split over ranks.
            first_row = sum(counts[: rank()])
            a, u = gather(a.detach(), counts=counts), gather(u.detach(), counts=counts)
            clip_ids = gather(clip_ids, counts=counts)
            caption_ids = gather(caption_ids, counts=counts)
            audio = gather_tokens(audio, counts=counts)
            text = gather_tokens(text, counts=counts)

        positives = positive_pairs(
            clip_ids, caption_ids, clip_ids, caption_ids, self.config.positives
        )
        with torch.autocast(a.device.type, enabled=False):
            similarity = (a.detach().float() @ u.detach().float().T) / self.temperature.detach()
        generator = self._seeded(a.device, 0 if all_ranks else rank())
        own = torch.arange(first_row, first_row + b, device=a.device)
        hard_text = hard_negatives(similarity, positives, generator)
        hard_audio = hard_negatives(similarity.T, positives.T, generator)
        # Ranks count by their pairs in the mean where all are known, and by their items else.
        pairs = 1 + (hard_text >= 0).long() + (hard_audio >= 0).long()
        weight = (
            mean_weight(pairs[own].sum(), pairs.sum()) if all_ranks else mean_weight(b, sum(counts))
        )
        hard_text, hard_audio = hard_text[own], hard_audio[own]

        # One fusion pass: [matching | own text, hard audio | own audio, hard text].
        # `index_select` and no `[...]`, whose backward adds the gradients of an item's pairs in the
        # order in which threads come to them. Where there is no hard negative any item will do.
        for_audio = torch.cat([own, hard_audio.clamp(min=0), own])
        for_text = torch.cat([own, own, hard_text.clamp(min=0)])
        pair_text = TextTokens(*(x.index_select(0, for_text) for x in text))
        labels = torch.zeros(3 * b, dtype=torch.int64, device=a.device)
        labels[:b] = 1
        valid = torch.cat([labels[:b].bool(), hard_audio >= 0, hard_text >= 0])
        logits = self._match(pair_text, audio, for_audio)
        correct = (logits.argmax(dim=1) == labels) & valid
        return atm_loss(logits, labels, valid) * weight, (correct.sum() / valid.sum()).detach()

    def _match(self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor) -> Tensor:
        """Logits of P captions, each with a row of ``audio``."""
        # A clip is in three pairs on average, so its keys and values are better made before they
        # are chosen; not where the clips are those of many ranks.
        if getattr(self.model, "shares_audio", False) and len(audio.states) <= len(audio_rows):
            return self.model.match(text, audio, audio_rows)
        chosen = AudioTokens(*(x.index_select(0, audio_rows) for x in audio))
        return self.model.match(text, chosen)

    def _seeded(self, device: torch.device, stream: int) -> torch.Generator:
        """A generator whose draws depend on (seed, step, pass, stream) alone: a resumed run draws
        what the uninterrupted one would have, without a random state in the checkpoint."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
        key = (self.config.seed, self._num_steps, self._draws, stream)
        self._generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        self._draws += 1
        return self._generator
