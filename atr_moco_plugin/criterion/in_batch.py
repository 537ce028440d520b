"""The criterion without momentum: the baseline, and what all criteria share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from atr_moco_plugin.contracts import DualEncoder, Inputs
from atr_moco_plugin.criterion.atc import contrastive_loss
from atr_moco_plugin.criterion.chunks import check_chunks, check_reads_chunks, encode
from atr_moco_plugin.criterion.config import AtcConfig, CriterionConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.first_passes import FirstPasses
from atr_moco_plugin.criterion.taught import StudentLogits, TaughtCriterion
from atr_moco_plugin.distributed import gather, gather_counts, gather_packed, mean_weight
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.optim.step_hook import Attachment, attach
from atr_moco_plugin.optim.step_watch import StepWatch
from atr_moco_plugin.queue import EmbeddingQueue, check_ids
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import in_float32


class Atc(TaughtCriterion):
    """Contrastive loss over the global batch, without momentum: the baseline.

    The model has two towers and an embedding size, like
    :class:`~atr_moco_plugin.model.RetrievalModel`: ``model.audio(**audio)`` and
    ``model.text(**text)`` return ``(embeddings [B, d] unit-norm float32, tokens)``, and
    ``model.embed_dim`` is d. Matching criteria also call ``model.match(text_tokens, audio_tokens)
    -> logits [P, 2]``, row by row, or with ``audio_rows [P]`` as a third argument, the row of
    ``audio_tokens`` of each text, where the model has a true ``shares_audio``.

    The temperature stays float32 whatever the criterion is cast to, as queues and momentum copies
    do: in bfloat16 a step of AdamW at a rate of 1e-5 would not move it.

    Args:
        model: the online model; its parameters are trained.
        config: the options.

    Attributes:
        chunk_size: rows that a tower encodes at once, ``None`` for the whole batch. With chunks the
            towers run twice in exchange for the memory of a chunk (gradient caching, see
            :mod:`atr_moco_plugin.criterion.chunks`), and the loss and its gradient are those of the
            batch. It is how a batch is computed and not what, so it is no part of the state.
        total_steps: optimizer steps of the whole run, ``None`` where nobody has said so. Hosts set
            it before the first step; schedules read it.

    Raises:
        InputError: when ``config.embed_dim`` is not the model's.
    """

    config_class: ClassVar[type[CriterionConfig]] = AtcConfig

    measures: ClassVar[tuple[str, ...]] = ("loss", "loss_atc", "temperature")
    """What ``forward`` returns; with teachers ``loss_teacher`` too."""

    learns_temperature: ClassVar[bool] = True
    """Whether hosts start the temperature from that of a pretrained model."""

    chunk_size: int | None = None

    total_steps: int | None = None

    config: CriterionConfig
    model: DualEncoder
    temperature: nn.Parameter

    def __init__(self, model: DualEncoder, config: CriterionConfig) -> None:
        super().__init__(config)
        if config.embed_dim not in (None, model.embed_dim):
            raise InputError(
                f"`embed_dim` of the criterion is {config.embed_dim}, "
                f"but the model's embeddings have size {model.embed_dim}."
            )
        self.model = model
        # One element and not a scalar: FSDP2 shards no 0-D parameter.
        self.temperature = nn.Parameter(torch.tensor([config.temperature], dtype=torch.float32))
        self._step_watch, self._first_passes = StepWatch(), FirstPasses()
        self.register_load_state_dict_post_hook(_after_loading)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """Modality to queue, empty for a criterion without queues."""
        return {}

    def attach(self, optimizers: Optimizer | Sequence[Optimizer]) -> Attachment:
        """Run :meth:`on_optimizer_step` after every optimizer step. Call it once, before the loop;
        a loop that never does is warned.

        Args:
            optimizers: see :func:`atr_moco_plugin.optim.step_hook.attach`.

        Returns:
            A handle; ``handle.remove()`` takes the hook away.

        Raises:
            InputError: see :func:`atr_moco_plugin.optim.step_hook.attach`, and
                :func:`~atr_moco_plugin.criterion.chunks.check_reads_chunks`.
        """
        check_reads_chunks(self)
        return attach(self, optimizers)

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        """Clip the temperature, after each optimizer step.

        :meth:`attach` calls it. A loop without an optimizer of torch calls it itself, outside of
        ``forward``: FSDP2 loses a write made inside, and a second pass before backward would find
        the temperature changed.
        """
        self._step_watch.expect_moved_weights()
        self._clip_temperature()

    @torch.no_grad()
    def _clip_temperature(self) -> None:
        self.temperature.clamp_(*self.config.temperature_range)

    def on_step_skipped(self) -> None:
        """Called in place of :meth:`on_optimizer_step` after a step that changed no weight: the
        guard against NaN has dropped its gradients, or a gradient scaler has skipped it."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the initial state, in place and without the model: for a criterion that was made
        on the device ``meta`` and moved with ``to_empty``."""
        self.temperature.fill_(self.config.temperature)
        self._reset_teachers()
        self._step_watch.expect_moved_weights()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Atc:
        if recurse:
            for module in self.children():
                module._apply(fn)
        super()._apply(in_float32(fn), recurse=False)  # type: ignore[no-untyped-call]
        return self

    @not_compiled
    def _check_batch(self, a: Tensor, u: Tensor, clip_ids: Tensor, caption_ids: Tensor) -> None:
        if len(a) != len(u):
            raise InputError(
                f"The batch has {len(a)} clips and {len(u)} captions: give a caption for each clip."
            )
        if not len(a):
            raise InputError("The batch has no clip: leave empty batches out of the loop.")
        for name, x in (("audio", a), ("text", u)):
            if x.shape[1:] != (self.model.embed_dim,):
                raise InputError(
                    f"The {name} tower returns embeddings of the shape {list(x.shape)}, but "
                    f"`embed_dim` of the model is {self.model.embed_dim}: give both towers "
                    "projections to that size."
                )
        looks = self._trains and not self._first_passes.over
        check_ids(len(a), clip_ids, caption_ids, any_device=looks)
        if looks:
            self._first_passes.look(a, u, clip_ids, caption_ids, self.config.positives)

    @property
    def _trains(self) -> bool:
        """Whether this is a training pass; an evaluation pass leaves no trace."""
        return self.training and torch.is_grad_enabled()

    @not_compiled
    def _start_pass(self) -> None:
        """What comes first in every ``forward``."""
        if self._trains:
            if self.total_steps is not None and self.total_steps < 1:
                raise InputError(
                    f"`total_steps` of the criterion is {self.total_steps}, expected 1 or more: "
                    "it is the number of optimizer steps of the whole run."
                )
            check_chunks(self.chunk_size, self.model)
            self._check_teachers()
            self._step_watch.look(self, self._some_parameters())

    def _some_parameters(self) -> Iterator[Tensor]:
        """One of each part that is trained."""
        yield self.temperature
        for tower in (self.model.audio, self.model.text):
            if isinstance(tower, nn.Module):
                trained = (p for p in tower.parameters() if p.requires_grad)
                yield next(trained, self.temperature)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """Compute the loss of one batch.

        Args:
            audio: arguments of the audio tower.
            text: arguments of the text tower.
            clip_ids: ``[B]`` int64, 0 or above; ``[B, 2]`` with mixtures of two clips, where the
                second is -1 for an item that is none, see :func:`positive_pairs`.
            caption_ids: of the same shape.

        The values of ids and embeddings are looked at in the first training passes of a process,
        those of ids on the CPU in every pass; later the host does not wait for the device.

        Returns:
            ``loss`` (scalar with a gradient) and its parts and measures, scalars without one. The
            mean of the losses over processes is the loss of the global batch, also where processes
            have different numbers of items.

        Raises:
            InputError: see :func:`~atr_moco_plugin.queue.batch_ids.check_ids`; the embeddings
                are of another size than ``model.embed_dim``, or not of length 1.
        """
        self._start_pass()
        a = encode(self.model.audio, audio, self.chunk_size).embeddings
        u = encode(self.model.text, text, self.chunk_size).embeddings
        self._check_batch(a, u, clip_ids, caption_ids)
        counts = gather_counts(len(a), a.device)
        # One exchange: both are float32 and of one size.
        all_a, all_u = gather(torch.cat([a, u], dim=1), grad=True, counts=counts).chunk(2, dim=1)
        batch = GlobalBatch(
            counts, all_a, all_u, *gather_packed(clip_ids, caption_ids, counts=counts)
        )
        loss_atc, measures = self._loss(a, u, batch)
        ids = batch.clip_ids, batch.caption_ids
        student = StudentLogits(a, u, (batch.a,), (batch.u,), *ids, batch.own)
        weight = mean_weight(len(a), len(all_a))
        loss, of_teachers = self._with_teachers(loss_atc, student, weight)
        return {
            "loss": loss * weight,
            "loss_atc": (loss_atc * weight).detach(),
            "temperature": self.temperature.detach().squeeze(),
            **measures,
            **of_teachers,
        }

    def _loss(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the items of this process, and further measures.

        Args:
            a: ``[B, d]`` unit-norm audio embeddings of this process.
            u: ``[B, d]`` unit-norm text embeddings of this process.
            batch: the items of all processes.
        """
        positives = batch.positives(self.config.positives)
        decoupled = isinstance(self.config, AtcConfig) and self.config.decoupled
        loss = contrastive_loss(
            a, u, batch.a, batch.u, positives, self.temperature, decoupled=decoupled
        )
        return loss, {}


def _after_loading(criterion: Atc, _: Any) -> None:
    # Loading a state moves the weights without an optimizer step, and its run may have had another
    # range of the temperature.
    criterion._step_watch.expect_moved_weights()
    criterion._clip_temperature()
