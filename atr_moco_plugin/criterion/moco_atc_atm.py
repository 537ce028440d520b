"""The full momentum criterion: contrastive and matching loss.

One training step, top to bottom, is :meth:`MocoAtcAtm.forward`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.atm import atm_loss, hard_negatives
from atr_moco_plugin.criterion.config import AtcConfig, MocoAtcAtmConfig
from atr_moco_plugin.criterion.in_batch import Inputs
from atr_moco_plugin.criterion.moco_atc import GlobalBatch, MocoAtc
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.distributed import (
    gather,
    gather_numbers,
    gather_packed,
    mean_weight,
    pad_to,
    process_index,
    world_size,
)
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import cosines
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens


class Pairs(NamedTuple):
    """The 3 B pairs of this rank: [matching | own text, hard audio | own audio, hard text].

    Attributes:
        text_rows: ``[3 B]`` int64, the caption of each pair.
        audio_rows: ``[3 B]`` int64, the clip of each pair.
        valid: ``[3 B]`` bool, ``False`` where an item has no hard negative and any stands in.
        weight: see :func:`~atr_moco_plugin.distributed.mean_weight`.
    """

    text_rows: Tensor
    audio_rows: Tensor
    valid: Tensor
    weight: float | Tensor


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
        # Passes that trained since the last optimizer step. Saved, since a state can be of the
        # middle of an accumulation; mirrored, so that no step waits for the device.
        self.register_buffer("num_draws", torch.zeros(1, dtype=torch.int64))
        self._num_draws = 0
        self._generator: torch.Generator | None = None

    def on_optimizer_step(self) -> None:
        """See :meth:`MocoAtc.on_optimizer_step`."""
        super().on_optimizer_step()
        self._set_num_draws(0)

    def on_step_skipped(self) -> None:
        """Begin the draws of this step anew, as a run does that resumes here."""
        super().on_step_skipped()
        self._set_num_draws(0)

    def reset_parameters(self) -> None:
        """See :meth:`MocoAtc.reset_parameters`."""
        super().reset_parameters()
        self._set_num_draws(0)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`MocoAtc.forward`; adds ``loss_atm`` and ``atm_accuracy``."""
        self._start_pass()
        audio = self._prepare(audio)
        a, audio_tokens = self.model.audio(**audio)
        u, text_tokens = self.model.text(**text)
        a_m, u_m = self.audio_m(**audio)[0], self.text_m(**text)[0]
        items, online, audio_tokens, text_tokens = self._exchanged_all(
            (a_m, u_m, clip_ids, caption_ids), (a, u), audio_tokens, text_tokens
        )
        loss_atc = self._atc(a, u, items)
        pairs = self._pairs(*online, items)
        loss_atm, accuracy = self._atm(audio_tokens, text_tokens, pairs)
        return {
            "loss": self.config.atc_weight * loss_atc + self.config.atm_weight * loss_atm,
            "loss_atm": loss_atm.detach(),
            "atm_accuracy": accuracy,
            **self._measures(loss_atc),
        }

    @not_compiled
    def _exchanged_all(
        self,
        own: tuple[Tensor, Tensor, Tensor, Tensor],
        online: tuple[Tensor, Tensor],
        audio: AudioTokens,
        text: TextTokens,
    ) -> tuple[GlobalBatch, tuple[Tensor, Tensor], AudioTokens, TextTokens]:
        """The items of all ranks, and where negatives are drawn from all of them, also their online
        embeddings (no gradient flows through a draw) and tokens.

        Two exchanges, and one for the token states of each modality that the head reads; those of
        captions are dropped where it says that it does not.
        """
        if not getattr(self.model, "needs_text_states", True):
            text = text._replace(states=None)
        if self.config.negatives == "batch" or world_size() == 1:
            return self._exchanged(*own), online, audio, text
        lengths = audio.mask.size(1), text.mask.size(1)
        shapes = gather_numbers([len(own[0]), *lengths], own[0].device)
        counts, *all_lengths = (list(x) for x in zip(*shapes, strict=True))
        audio, text = (
            type(tokens)(*(None if x is None else pad_to(x, 1, max(length)) for x in tokens))
            for tokens, length in zip((audio, text), all_lengths, strict=True)
        )
        *everyone, a, u, audio_mask, text_mask, input_ids = gather_packed(
            *own, *online, audio.mask, text.mask, text.input_ids, counts=counts
        )
        audio_states, text_states = (
            None if x is None else gather(x, grad=True, counts=counts)
            for x in (audio.states, text.states)
        )
        return (
            GlobalBatch(counts, *everyone),
            (a, u),
            AudioTokens(audio_states, audio_mask),
            TextTokens(text_states, text_mask, input_ids),
        )

    @not_compiled
    def _pairs(self, a: Tensor, u: Tensor, items: GlobalBatch) -> Pairs:
        """The pairs of this rank. ``a`` and ``u`` are the embeddings to draw from: those of this
        rank, or of all."""
        everywhere = self.config.negatives == "all_ranks"
        counts, own = items.counts, items.own
        clip_ids, caption_ids = (
            x if everywhere else x[own] for x in (items.clip_ids, items.caption_ids)
        )
        # Every rank draws for the global batch with one seed and keeps its own rows, so the draws
        # do not depend on how the batch is split over ranks.
        first_row, b = own.start if everywhere else 0, counts[process_index()]
        positives = positive_pairs(
            clip_ids, caption_ids, clip_ids, caption_ids, self.config.positives
        )
        similarity = cosines(a.detach(), u.detach()) / self.temperature.detach()
        generator = self._seeded(a.device, 0 if everywhere else process_index())
        hard_text = hard_negatives(similarity, positives, generator)
        hard_audio = hard_negatives(similarity.T, positives.T, generator)
        # Ranks count by their pairs in the mean where all are known, and by their items else.
        of_item = 1 + (hard_text >= 0).long() + (hard_audio >= 0).long()
        here = slice(first_row, first_row + b)
        weight = (
            mean_weight(of_item[here].sum(), of_item.sum())
            if everywhere and len(counts) > 1
            else mean_weight(b, sum(counts))
        )
        hard_text, hard_audio = hard_text[here], hard_audio[here]
        row = torch.arange(first_row, first_row + b, device=a.device)
        # Where there is no hard negative any item will do.
        return Pairs(
            torch.cat([row, row, hard_text.clamp(min=0)]),
            torch.cat([row, hard_audio.clamp(min=0), row]),
            torch.cat([torch.ones_like(row, dtype=torch.bool), hard_audio >= 0, hard_text >= 0]),
            weight,
        )

    def _atm(self, audio: AudioTokens, text: TextTokens, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Matching loss over the pairs of this rank, in one fusion pass, and the accuracy."""
        logits = self._match(take_tokens(text, pairs.text_rows), audio, pairs.audio_rows)
        valid = pairs.valid
        labels = torch.zeros_like(pairs.text_rows)
        labels[: len(labels) // 3] = 1
        correct = (logits.argmax(dim=1) == labels) & valid
        loss = atm_loss(logits, labels, valid) * pairs.weight
        return loss, (correct.sum() / valid.sum()).detach()

    def _match(self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor) -> Tensor:
        """Logits of P captions, each with a row of ``audio``."""
        # A clip is in three pairs on average, so its keys and values are better made before they
        # are chosen; not where the clips are those of many ranks.
        if getattr(self.model, "shares_audio", False) and len(audio.states) <= len(audio_rows):
            return self.model.match(text, audio, audio_rows)
        return self.model.match(text, take_tokens(audio, audio_rows))

    def _seeded(self, device: torch.device, stream: int) -> torch.Generator:
        """A generator whose draws depend on (seed, step, pass, stream) alone: a resumed run draws
        what the uninterrupted one would have, without a random state in the checkpoint. Passes of
        evaluation are not counted."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
        key = (self.config.seed, self._num_steps, self._num_draws, stream)
        self._generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        if self._trains:
            self._set_num_draws(self._num_draws + 1)
        return self._generator

    def _set_num_draws(self, number: int) -> None:
        self._num_draws = number
        self.num_draws.fill_(number)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Checkpoints of version 0.1.0 have none: taken to be of the end of a step.
        state_dict = {f"{prefix}num_draws": torch.zeros_like(self.num_draws), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_draws = int(self.num_draws)
