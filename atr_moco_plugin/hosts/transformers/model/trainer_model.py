"""A criterion around a model, in the form that transformers' ``Trainer`` trains.

``Trainer`` calls ``model(**batch)`` and takes ``["loss"]`` of the result.
:class:`~atr_moco_plugin.hosts.transformers.MocoCallback` attaches the criterion to its optimizer.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import Atc, CriterionConfig
from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.criterion.exchange import equal_buffers
from atr_moco_plugin.encoders.hf.group_norm import counts_frames
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.internals import (
    MISSING_ATTRIBUTES,
    NotOfferedError,
    checkpoint_layers,
)
from atr_moco_plugin.hosts.transformers.model.evaluation import (
    embed_captions,
    embed_clips,
    evaluation_loss,
    scored_by,
)
from atr_moco_plugin.hosts.transformers.model.shared import drop_shared, restore_shared
from atr_moco_plugin.learned_distance import learned_factor
from atr_moco_plugin.model.adapters import check_same_adapters
from atr_moco_plugin.plugins import load
from atr_moco_plugin.tensors.internals import exclude_from_ddp_broadcast
from atr_moco_plugin.tokens import AudioTokens, TextTokens

_STAGES = {"lower", "tokens", "pooled"}
"""Inputs at a later stage of a tower, which both towers take; only ``audio_inputs`` and
``text_inputs`` have them."""


class TrainerModel(nn.Module):
    """What to give ``Trainer`` as its model: one of the criteria around two towers.

    The momentum copies, the queues with their ids, the temperature and the step count are in its
    ``state_dict``, so that ``Trainer``'s checkpoints resume exactly. A tensor that two names share
    is in it once.

    Args:
        model: ``audio``, ``text``, ``match`` and ``embed_dim``, such as
            :class:`~atr_moco_plugin.hosts.transformers.TowerPair` or
            :class:`~atr_moco_plugin.model.RetrievalModel`. The keys of a batch are
            the arguments of ``model.audio.forward`` and ``model.text.forward``.
        criterion: name in the group ``atr_moco_plugin.criteria``.
        chunk_size: clips, and captions, that are encoded at once, for a large batch in the memory
            of a small one (gradient caching, :mod:`atr_moco_plugin.criterion.chunks`); ``None``
            encodes the batch at once.
        options: fields of the criterion's configuration.

    Attributes:
        criterion_name: name of the criterion.
        skipped_in_training: ids of the clips that the collator left out, in this process.
        skipped_in_evaluation: the same for evaluation batches.

    Raises:
        InputError: an unknown criterion or option, or the two towers share an argument's name.
    """

    accepts_loss_kwargs = False
    """Has ``Trainer`` divide the loss by the accumulation steps itself."""

    def __init__(
        self,
        model: Any,
        criterion: str = "moco_atc_atm",
        *,
        chunk_size: int | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        criterion_class = load("criteria", criterion)
        self.criterion_name = criterion
        config = build_config(criterion_class.config_class, options, criterion)
        self.criterion: Atc = criterion_class(model, config)
        use_chunks(self.criterion, chunk_size)
        self._audio_inputs = _arguments(model.audio)
        self._text_inputs = _arguments(model.text)
        if shared := self._audio_inputs & self._text_inputs:
            raise InputError(
                f"Both towers take {', '.join(sorted(shared))}: name the arguments of their "
                "`forward` differently, since the batch has one entry for each."
            )
        # DDP sends buffers from the first process before each forward pass. Running statistics of
        # batch norms need that, and their momentum copies; queues are equal everywhere and large.
        exclude_from_ddp_broadcast(self, equal_buffers(self))
        self.skipped_in_training: set[int] = set()
        self.skipped_in_evaluation: set[int] = set()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._passes: Tensor | int = 0
        self.register_state_dict_post_hook(drop_shared)
        self.register_load_state_dict_pre_hook(restore_shared)
        # Before the hooks of its parts, which would take plain weights beside new adapters.
        self.register_load_state_dict_pre_hook(check_same_adapters)

    def forward(
        self,
        clip_id: Tensor,
        caption_id: Tensor,
        *,
        windows: Tensor | None = None,
        random_crop: Tensor | None = None,
        skipped_clip_id: Tensor | None = None,
        audio_inputs: Mapping[str, Any] | None = None,
        text_inputs: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> dict[str, Tensor]:
        """The loss of one batch.

        Args:
            clip_id: ``[B]`` int64, see :func:`atr_moco_plugin.ids.clip_id`; in training also
                ``[B, 2]``, as ``caption_id``: :func:`~atr_moco_plugin.criterion.positive_pairs`.
            caption_id: ``[B]`` int64, see :func:`atr_moco_plugin.ids.caption_id`; in evaluation
                also ``[B, K]``, the captions of a clip.
            windows: ``[B]`` int64, in evaluation, where a clip is given in several windows.
            random_crop: ``[B]`` bool, which clips were cropped at random.
            skipped_clip_id: ids of the clips that the collator left out.
            audio_inputs: arguments of the audio tower, in place of those among ``inputs``: both
                towers may take ``tokens``. These may be a mapping of their fields, since
                ``Trainer`` takes named tuples apart.
            text_inputs: likewise those of the text tower.
            inputs: arguments of the two towers.

        Returns:
            In training mode what the criterion returns. In evaluation mode ``loss``, the
            contrastive loss within the batch without queues, and ``audio_embeds`` (``[B, d]``) and
            ``text_embeds`` (``[B, d]``, or ``[B, K, d]``, zero where there is no caption),
            unit-norm float32; nothing of the criterion's state changes. A clip that is in several
            rows is encoded once. Of a criterion that learns a distance they are the d + 4 numbers
            of which the cosine ranks by it, :mod:`atr_moco_plugin.learned_distance`.

        Raises:
            InputError: the batch has an entry that neither tower takes, was made for training and
                the model evaluates, or the other way round.
        """
        audio, text = self.arguments_of_towers(audio_inputs, text_inputs, **inputs)
        if skipped_clip_id is not None:
            skipped = self.skipped_in_training if self.training else self.skipped_in_evaluation
            skipped.update(skipped_clip_id.tolist())
        if not self.training:
            if random_crop is not None and random_crop.any():
                raise InputError(
                    "The batch has clips that were cropped at random, and figures of them would be "
                    "others each time: collate with `collator.for_evaluation()`, or give Trainer "
                    "the collator itself and add MocoCallback."
                )
            model = self.criterion.model
            # A third party's criterion may have no such option.
            mode = getattr(self.criterion.config, "positives", CriterionConfig.positives)
            factor = learned_factor(self.criterion)
            tower = scored_by(model.audio, factor, "audio")
            a = embed_clips(tower, audio, clip_id, windows, factor)
            u = embed_captions(scored_by(model.text, factor, "text"), text, caption_id)
            loss = evaluation_loss(a, u, clip_id, caption_id, mode, self.criterion.temperature)
            return {"loss": loss, "audio_embeds": a, "text_embeds": u}
        if caption_id.ndim > clip_id.ndim or windows is not None:
            raise InputError(
                "The batch has all captions or several windows of a clip, as an evaluation takes "
                "them: collate with `collator.for_training()`, or add MocoCallback to Trainer."
            )
        losses: dict[str, Tensor] = self.criterion(audio, text, clip_id, caption_id)
        # A batch that is not finite stops the run or is left out; leave it out of the averages too.
        finite = losses["loss"].detach().isfinite()
        for name, value in losses.items():
            measured = finite & ~value.detach().isnan()
            self._sums[name] = self._sums.get(name, 0) + torch.where(measured, value.detach(), 0.0)
            self._counts[name] = self._counts.get(name, 0) + measured
        self._passes = self._passes + finite
        return losses

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute the layers of both encoders again in the backward pass, as ``Trainer`` asks for
        with ``gradient_checkpointing=True`` (``activation_checkpointing=True`` from 5 on), but for
        those with a norm that goes by what is only there in the forward pass.

        Args:
            activation_checkpointing_kwargs: options of :func:`torch.utils.checkpoint.checkpoint`;
                ``use_reentrant`` is False where it is not given.
            every_n_layers: 1 for each layer of an encoder, 2 for every second one, counted from
                the first.
            offload: must be False.

        Raises:
            InputError: a tower has no layer that can be computed again, or ``offload`` is True.
        """
        if offload:
            raise InputError(
                "`offload` of activation checkpoints is not offered for two towers: leave it out."
            )
        for name in ("audio", "text"):
            tower = getattr(self.criterion.model, name)
            options = activation_checkpointing_kwargs or {}
            checkpoint_layers(tower, name, options, every_n_layers, but=counts_frames)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """The call of ``Trainer`` up to version 4, see :meth:`activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in MISSING_ATTRIBUTES:
            raise NotOfferedError(MISSING_ATTRIBUTES[name])
        return super().__getattr__(name)

    def pop_measures(self) -> dict[str, float]:
        """Means of what the criterion returned besides ``loss`` since the last call, over the
        batches of this process whose loss was finite; NaN where there was none. What is NaN in all
        of them, such as a loss that has not begun, is left out."""
        means = {}
        for name, total in self._sums.items():
            count = int(self._counts[name])
            if name != "loss" and (count or not self._passes):
                means[name] = float(total) / count if count else math.nan
        self._sums, self._counts, self._passes = {}, {}, 0
        return means

    def arguments_of_towers(
        self,
        audio_inputs: Mapping[str, Any] | None = None,
        text_inputs: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of the audio tower and of the text tower in a batch.

        Args:
            audio_inputs: see :meth:`forward`.
            text_inputs: see :meth:`forward`.
            inputs: see :meth:`forward`.

        Raises:
            InputError: the batch has an entry that neither tower takes.
        """
        for name in inputs.keys() - self._audio_inputs - self._text_inputs:
            raise InputError(
                f"The batch has {name!r}, but the audio tower takes "
                f"{', '.join(sorted(self._audio_inputs))} and the text tower "
                f"{', '.join(sorted(self._text_inputs))}: leave it out in the collator."
            )
        audio = {name: value for name, value in inputs.items() if name in self._audio_inputs}
        text = {name: value for name, value in inputs.items() if name in self._text_inputs}
        return (
            audio if audio_inputs is None else _with_tokens(audio_inputs, AudioTokens),
            text if text_inputs is None else _with_tokens(text_inputs, TextTokens),
        )


def _with_tokens(inputs: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Arguments of a tower, with tokens that are a mapping put together."""
    tokens = inputs.get("tokens")
    return {**inputs, "tokens": kind(**tokens)} if isinstance(tokens, Mapping) else dict(inputs)


def _arguments(tower: nn.Module) -> set[str]:
    # Later stages have one name for both towers, so that a batch cannot say whose they are.
    return set(inspect.signature(tower.forward).parameters) - _STAGES
