"""The full momentum criterion: contrastive and matching loss.

One training step, top to bottom, is :meth:`MocoAtcAtm.forward`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from atr_moco_plugin.contracts import Inputs, MatchingModel
from atr_moco_plugin.criterion.atm import atm_loss
from atr_moco_plugin.criterion.chunks import EncodedBatch, encode, match_in_chunks
from atr_moco_plugin.criterion.config import CriterionConfig, MocoAtcAtmConfig
from atr_moco_plugin.criterion.exchange import (
    GlobalBatch,
    OnlineBatch,
    gather_batch,
    gather_batch_and_tokens,
)
from atr_moco_plugin.criterion.matching_start import MatchingStart
from atr_moco_plugin.criterion.moco_atc import MocoAtc
from atr_moco_plugin.criterion.pairs import Pairs, draw_pairs
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.distributed import world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens


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

    Raises:
        InputError: see :class:`MocoAtc`; the model cannot match, or its head is for tokens of
            another width.
    """

    config_class: ClassVar[type[CriterionConfig]] = MocoAtcAtmConfig

    measures: ClassVar[tuple[str, ...]] = (*MocoAtc.measures, "loss_atm", "atm_accuracy")

    config: MocoAtcAtmConfig
    model: MatchingModel
    num_draws: Tensor

    def __init__(self, model: MatchingModel, config: MocoAtcAtmConfig) -> None:
        _check_matching(model)
        super().__init__(model, config)
        self.matching_start = MatchingStart(config.atm_start, config.atm_every)
        # Training passes since the last optimizer step. Saved, since a state can be of the middle
        # of an accumulation; mirrored by an integer, so that no step waits for the device.
        self.register_buffer("num_draws", torch.zeros(1, dtype=torch.int64))
        self._num_draws = 0
        self.register_load_state_dict_post_hook(_catch_up)

    @property
    def num_negatives(self) -> int:
        """Hard negatives of an item."""
        return 2 if self.config.atm_pairs == "both" else 1

    @property
    def matching_since(self) -> int:
        """Optimizer steps made when the matching loss began, -1 before."""
        return self.matching_start.begun_at

    @property
    def head_trained(self) -> bool:
        """Whether the matching head has made a step since it waited, so that its scores count."""
        return self.matching_since == 0 or 0 < self.matching_since < self._num_steps

    def on_optimizer_step(self) -> None:
        """See :meth:`MocoAtc.on_optimizer_step`; decides whether the matching loss begins."""
        super().on_optimizer_step()
        self.matching_start.on_optimizer_step(self._num_steps, self.total_steps)
        self._set_num_draws(0)

    def on_step_skipped(self) -> None:
        """Repeat the draws of this step, as a run does that resumes here."""
        super().on_step_skipped()
        self._set_num_draws(0)

    def reset_parameters(self) -> None:
        """See :meth:`MocoAtc.reset_parameters`."""
        super().reset_parameters()
        self.matching_start.reset_parameters()
        self._set_num_draws(0)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`MocoAtc.forward`; adds ``loss_atm`` and ``atm_accuracy``.

        In a step without a matching loss both are NaN, and the pass is that of :class:`MocoAtc`:
        the head has no gradient. An evaluation pass has a matching loss as soon as it has begun.
        """
        if not self._matches():
            out = super().forward(audio, text, clip_ids, caption_ids)
            nothing = torch.full_like(out["loss_atc"], torch.nan)
            loss = self.config.atc_weight * out["loss"]
            return {**out, "loss": loss, "loss_atm": nothing, "atm_accuracy": nothing}
        self._start_pass()
        a, audio_tokens, a_m = self._encode(self.model.audio, audio, self.audio_m)
        u, text_tokens, u_m = self._encode(self.model.text, text, self.text_m)
        self._check_batch(a, u, clip_ids, caption_ids)
        batch, online = self._gather_all(
            (a_m, u_m, clip_ids, caption_ids), OnlineBatch(a, u, audio_tokens, text_tokens)
        )
        loss_atc, losses = self._atc(a, u, batch)
        self._enqueue(batch)
        pairs = self._draw(online, batch)
        loss_atm, accuracy = self._atm(online.audio, online.text, pairs)
        return {
            "loss": self.config.atc_weight * loss_atc + self.config.atm_weight * loss_atm,
            "loss_atm": loss_atm.detach(),
            "atm_accuracy": accuracy,
            **losses,
            **self._measures(),
        }

    @not_compiled
    def _start_pass(self) -> None:
        super()._start_pass()
        self.matching_start.check(self.total_steps)

    @not_compiled
    def _matches(self) -> bool:
        start = self.matching_start
        return start.is_due(self._num_steps) if self._trains else start.begun

    @not_compiled
    def _enqueue(self, batch: GlobalBatch) -> None:
        super()._enqueue(batch)
        if self._trains and self.matching_start.looks:
            ids = batch.clip_ids, batch.caption_ids
            same = positive_pairs(*ids, *ids, mode=self.config.positives)
            self.matching_start.look(batch.a, batch.u, same)

    def _encode(self, tower: Any, inputs: Inputs, momentum: MomentumCopy | None) -> EncodedBatch:
        return encode(tower, inputs, self.chunk_size, momentum=momentum, tokens=True)

    @not_compiled
    def _gather_all(
        self, own: tuple[Tensor, Tensor, Tensor, Tensor], online: OnlineBatch
    ) -> tuple[GlobalBatch, OnlineBatch]:
        """The items of all processes, and the items that negatives are drawn from."""
        if not getattr(self.model, "needs_text_states", True):
            online = online._replace(text=online.text._replace(states=None))
        if self.config.negatives == "batch" or world_size() == 1:
            return gather_batch(*own), online
        return gather_batch_and_tokens(*own, online)

    @not_compiled
    def _draw(self, online: OnlineBatch, batch: GlobalBatch) -> Pairs:
        pairs = draw_pairs(
            online.a,
            online.u,
            batch,
            temperature=self.temperature,
            positives=self.config.positives,
            all_processes=self.config.negatives == "all_ranks",
            seed=(self.config.seed, self._num_steps, self._num_draws),
            sides=self.config.atm_pairs,
            turn=self.matching_start.turn(self._num_steps),
        )
        if self._trains:
            self._set_num_draws(self._num_draws + 1)
        return pairs

    def _atm(self, audio: AudioTokens, text: TextTokens, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Matching loss over the pairs of this process, in one fusion pass (or in one for each
        chunk), and the accuracy."""
        rows = pairs.text_rows, pairs.audio_rows
        if self.chunk_size is None:
            logits = self._match(take_tokens(text, rows[0]), audio, rows[1])
        else:
            logits = match_in_chunks(
                self._match, text, audio, *rows, items=pairs.items, chunk_size=self.chunk_size
            )
        valid = pairs.valid
        labels = torch.zeros_like(pairs.text_rows)
        labels[: pairs.items] = 1
        correct = (logits.argmax(dim=1) == labels) & valid
        loss = atm_loss(logits, labels, valid) * pairs.weight
        return loss, (correct.sum() / valid.sum()).detach()

    def _match(self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor) -> Tensor:
        """Logits of P captions, each with a row of ``audio``."""
        # A clip is in three pairs on average, so its keys and values are better made before it is
        # chosen; not where the clips are those of many processes.
        if getattr(self.model, "shares_audio", False) and len(audio.states) <= len(audio_rows):
            return self.model.match(text, audio, audio_rows)
        return self.model.match(text, take_tokens(audio, audio_rows))

    def _set_num_draws(self, number: int) -> None:
        self._num_draws = number
        self.num_draws.fill_(number)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Checkpoints of version 0.1.0 have none: they were saved at the end of a step.
        # In place: torch has copied what a caller gave, and the modules within see this one.
        _add_matching_start(state_dict, prefix, self.matching_start)
        state_dict.setdefault(f"{prefix}num_draws", torch.zeros_like(self.num_draws))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_draws = int(self.num_draws)


def _check_matching(model: Any) -> None:
    """Refuse a model whose first matching step would fail, which may be far into a run."""
    if not callable(getattr(model, "match", None)):
        raise InputError(
            f"The criterion `moco_atc_atm` scores pairs with `model.match`, but the "
            f"{type(model).__name__} has none: take `moco_atc`, or write one (docs/plugins.md)."
        )
    if not str(model.match.__module__).startswith("atr_moco_plugin."):
        return  # it may do without a head, and change the tokens as it likes
    if model.head is None:
        raise InputError(
            "The criterion `moco_atc_atm` scores pairs with `model.head`, but it is None: take "
            "`moco_atc`, or give the model a head, such as a FusionHead."
        )
    for name in ("audio", "text"):
        tower, expected = getattr(model, name), getattr(model.head, f"{name}_width", None)
        width = getattr(tower, "width", getattr(getattr(tower, "encoder", None), "width", None))
        if None not in (width, expected) and width != expected:
            raise InputError(
                f"`model.head` is for {name} tokens of width {expected}, but the {name} tower "
                f"makes them of width {width}: build the head for this tower, or take `moco_atc`."
            )


def _catch_up(criterion: MocoAtcAtm, _: Any) -> None:
    criterion.matching_start.catch_up(criterion._num_steps)


def _add_matching_start(state: dict[str, Any], prefix: str, present: MatchingStart) -> None:
    """For a state from before the matching loss could wait: it has been there from the first step.

    Not so in a state of :class:`MocoAtc`, which counts no draws, or of weights alone; version 0.1.0
    counted none either, but had no fingerprint of the data.
    """
    matched = f"{prefix}num_draws" in state or f"{prefix}data_fingerprint" not in state
    if matched and f"{prefix}num_steps" in state:
        state.setdefault(f"{prefix}matching_start.since", torch.zeros_like(present.since))
    for name, value in present.state_dict().items():
        state.setdefault(f"{prefix}matching_start.{name}", value)
