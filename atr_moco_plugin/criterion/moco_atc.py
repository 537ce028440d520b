"""The contrastive momentum criterion: a model, its momentum copies, the queues and the temperature.

One training step, top to bottom, is :meth:`MocoAtc.forward`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from atr_moco_plugin.criterion.atc import atc_loss
from atr_moco_plugin.criterion.config import AtcConfig, MocoAtcConfig
from atr_moco_plugin.criterion.in_batch import Atc, Inputs
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.distributed import (
    ProcessesDifferError,
    broadcast_bool,
    gather_counts,
    gather_packed,
    mean_weight,
    process_index,
    processes_that_differ,
)
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.optim.step_hook import Attachment
from atr_moco_plugin.queue import EmbeddingQueue, finite_rows
from atr_moco_plugin.rank.growth import growth_of_last_half
from atr_moco_plugin.tensors.compile import not_compiled

QUEUE_CHECK_EVERY = 100
"""Optimizer steps between two comparisons of the queues over ranks; each reads them once."""


class GlobalBatch(NamedTuple):
    """The N items of all ranks, in rank order; in a single process its B.

    Attributes:
        counts: items of every rank.
        a_m: ``[N, d]`` momentum embeddings of the clips.
        u_m: ``[N, d]`` momentum embeddings of the captions.
        clip_ids: ``[N]`` int64.
        caption_ids: ``[N]`` int64.
    """

    counts: list[int]
    a_m: Tensor
    u_m: Tensor
    clip_ids: Tensor
    caption_ids: Tensor

    @property
    def own(self) -> slice:
        """The rows of this rank."""
        first = sum(self.counts[: process_index()])
        return slice(first, first + self.counts[process_index()])


class MocoAtc(Atc):
    """Contrastive loss against momentum queues with momentum soft targets.

    Args:
        model: the online model. Its ``audio`` and ``text`` towers are copied as they are now, so
            load pretrained weights first.
        config: the options.
    """

    config_class: ClassVar[type[AtcConfig]] = MocoAtcConfig

    measures: ClassVar[tuple[str, ...]] = (*Atc.measures, "alpha", "queue_fill", "queue_size")

    config: MocoAtcConfig

    def __init__(self, model: nn.Module, config: MocoAtcConfig) -> None:
        super().__init__(model, config)
        self.audio_m = MomentumCopy(model.audio)
        self.text_m = MomentumCopy(model.text)
        self.audio_queue = _make_queue(config, model.embed_dim)
        self.text_queue = _make_queue(config, model.embed_dim)
        self._growth_limit = self.audio_queue.max_size
        self.register_buffer("num_steps", torch.zeros(1, dtype=torch.int64))
        # What `set_data` was told, 0 for nothing; the queues of a state may be of other data.
        self.register_buffer("data_fingerprint", torch.zeros(1, dtype=torch.int64))
        self._loaded_fingerprint = 0
        self._num_steps = 0  # mirror of the buffer, so that no step waits for the device
        self._steps_here = 0  # those that this process made, equal on every rank
        self.register_load_state_dict_post_hook(_copy_towers_that_were_not_saved)
        self.register_load_state_dict_post_hook(_leave_queues_of_other_data)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """The queue of each modality."""
        return {"audio": self.audio_queue, "text": self.text_queue}

    @property
    def alpha(self) -> float:
        """Weight of the soft targets at this step of the warm-up."""
        warmup = self.config.alpha_warmup_steps
        progress = min(1.0, self._num_steps / warmup) if warmup else 1.0
        return self.config.alpha * progress

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`; the momentum copies become those of the towers as they
        are when the first pass begins, or at :meth:`attach`."""
        super().reset_parameters()
        self.num_steps.zero_()
        self.data_fingerprint.zero_()
        self._num_steps = self._steps_here = self._loaded_fingerprint = 0
        for part in (self.audio_m, self.text_m, self.audio_queue, self.text_queue):
            part.reset_parameters()

    def attach(self, optimizers: Optimizer | Sequence[Optimizer]) -> Attachment:
        """See :meth:`Atc.attach`."""
        self._start_copies()
        return super().attach(optimizers)

    @not_compiled
    def _start_pass(self) -> None:
        super()._start_pass()
        self._start_copies()

    def _start_copies(self) -> None:
        self.audio_m.start(self.model.audio)
        self.text_m.start(self.model.text)

    def on_optimizer_step(self) -> None:
        """See :meth:`Atc.on_optimizer_step`; moves the momentum copies, counts the step, and lets
        the queues grow where ``queue_size`` is ``auto``. Every rank calls it.

        In the first step of a process and in every hundredth the queues of all ranks are compared.

        Raises:
            ProcessesDifferError: on every rank, where the queues differ.
        """
        super().on_optimizer_step()
        # Counted from the start of the process and not from what was loaded: a state that one rank
        # alone loaded is what the comparison is to find, and every rank has to take part in it.
        if self._steps_here % QUEUE_CHECK_EVERY == 0:
            self._check_queues()
        self._steps_here += 1
        self.audio_m.update(self.model.audio, self.config.momentum)
        self.text_m.update(self.model.text, self.config.momentum)
        self._num_steps += 1
        self.num_steps.fill_(self._num_steps)
        self._grow_queues()

    def _check_queues(self) -> None:
        queues = {name: (*queue.valid, queue.position) for name, queue in self.queues.items()}
        for name, ranks in processes_that_differ(queues).items():
            named = ", ".join(str(x) for x in ranks)
            raise ProcessesDifferError(
                f"The {name} queue of rank(s) {named} is not that of rank 0 after "
                f"{self._steps_here} optimizer steps of this job, so the ranks no longer train one "
                "model: load the same state on every rank, keep the criterion's buffers out of "
                "DDP's broadcast (`broadcast_buffers=False`), and go on from a checkpoint saved "
                "before."
            )

    def limit_growth(self, rows: int) -> None:
        """Let ``queue_size: auto`` grow to this many rows at most, such as the pairs of an epoch: a
        longer queue holds every item more than once. It is not part of the state.

        Args:
            rows: above ``queue_max`` or below the present size it changes nothing.
        """
        self._growth_limit = min(rows, self.audio_queue.max_size)

    def set_data(self, fingerprint: str) -> None:
        """Say which data the clip and caption ids are of. It is saved with the queues, and queues
        of other data are emptied, with a warning, whether they were loaded before or are later:
        their ids mean other items, and their embeddings are no negatives of these.

        Args:
            fingerprint: any text that another data set does not have, such as
                ``AudioTextDataset.fingerprint()``.
        """
        saved, told = int(self.data_fingerprint), stable_digest("data", fingerprint)
        self.data_fingerprint.fill_(told)
        self._keep_queues_of(saved)

    def _keep_queues_of(self, saved: int) -> None:
        """Empty queues of the data with the fingerprint `saved` where ours is another."""
        rows = sum(len(queue) for queue in self.queues.values())
        if saved in (0, int(self.data_fingerprint)) or rows == 0:
            return
        for queue in self.queues.values():
            queue.clear()
        warnings.warn(
            "The queues of the checkpoint hold embeddings of another data set, so they start "
            "empty.",
            stacklevel=2,
        )

    def _grow_queues(self) -> None:
        size = self.audio_queue.size
        if size >= self._growth_limit or not self.audio_queue.refilled:
            return
        if self._num_steps < self.config.queue_warmup_steps:
            return
        # The queues are equal on every rank, their singular values up to rounding only.
        worth_it = process_index() == 0 and any(
            growth_of_last_half(queue.newest(size // 2), queue.valid[0]).worth_it
            for queue in self.queues.values()
        )
        if broadcast_bool(worth_it, self.num_steps.device):
            size = min(2 * size, self._growth_limit)
        for queue in self.queues.values():
            queue.grow(size)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`Atc.forward`. In training mode the momentum embeddings are enqueued."""
        self._start_pass()
        audio = self._prepare(audio)
        a, _ = self.model.audio(**audio)
        u, _ = self.model.text(**text)
        a_m, u_m = self.audio_m(**audio)[0], self.text_m(**text)[0]
        loss = self._atc(a, u, self._exchanged(a_m, u_m, clip_ids, caption_ids))
        return {"loss": loss, **self._measures(loss)}

    def _prepare(self, audio: Inputs) -> Inputs:
        """Do once what the online tower and its momentum copy would both do to their input."""
        prepare = getattr(self.model.audio, "prepare", None)
        return audio if prepare is None else prepare(**audio)

    @not_compiled
    def _exchanged(
        self, a_m: Tensor, u_m: Tensor, clip_ids: Tensor, caption_ids: Tensor
    ) -> GlobalBatch:
        """The items of all ranks, in two exchanges."""
        counts = gather_counts(len(a_m), a_m.device)
        return GlobalBatch(counts, *gather_packed(a_m, u_m, clip_ids, caption_ids, counts=counts))

    @property
    def _trains(self) -> bool:
        """Whether this pass is one of training; a pass of evaluation leaves no trace."""
        return self.training and torch.is_grad_enabled()

    @not_compiled
    def _atc(self, a: Tensor, u: Tensor, items: GlobalBatch) -> Tensor:
        """Contrastive loss of the online embeddings ``a`` and ``u``, then the enqueue."""
        _, a_m, u_m, *ids = items
        # Views, which the enqueue at the end overwrites: `atc_loss` has found its gradient by then,
        # and the ids are put together, and so copied, below.
        rows = slice(None if self._num_steps >= self.config.queue_warmup_steps else 0)
        audio_queue, queue_clips, queue_captions = (x[rows] for x in self.audio_queue.valid)
        text_queue = self.text_queue.valid[0][rows]
        columns = torch.cat([ids[0], queue_clips]), torch.cat([ids[1], queue_captions])
        own = (x[items.own] for x in ids)
        positives = positive_pairs(*own, *columns, self.config.positives)
        ignore = None
        if self.config.queue_positives == "ignore":
            ignore = positives.clone()
            ignore[:, : len(a_m)] = False

        loss = atc_loss(
            a,
            u,
            a_m,
            u_m,
            audio_queue,
            text_queue,
            positives,
            self.temperature,
            self.alpha,
            ignore=ignore,
            first_row=items.own.start,
        ) * mean_weight(len(a), len(a_m))
        if self._trains:
            finite = finite_rows(a_m, u_m)  # row k of both queues stays the same item
            self.audio_queue.enqueue(a_m, *ids, finite=finite)
            self.text_queue.enqueue(u_m, *ids, finite=finite)
        return loss

    @not_compiled
    def _measures(self, loss_atc: Tensor) -> dict[str, Tensor]:
        fill = len(self.audio_queue) / max(self.audio_queue.size, 1)
        return {
            "loss_atc": loss_atc.detach(),
            "temperature": self.temperature.detach().squeeze(),
            # Filled on the device: a copy from the host would wait for it.
            "alpha": loss_atc.new_full((), self.alpha),
            "queue_fill": loss_atc.new_full((), fill),
            "queue_size": loss_atc.new_full((), self.audio_queue.size),
        }

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        told, name = self.data_fingerprint.clone(), f"{prefix}data_fingerprint"
        # Checkpoints of version 0.1.0 have none.
        state_dict = {name: torch.zeros_like(told), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_steps = int(self.num_steps)
        self._loaded_fingerprint = int(self.data_fingerprint)
        if int(told):
            self.data_fingerprint.copy_(told)


def _make_queue(config: MocoAtcConfig, dim: int) -> EmbeddingQueue:
    if config.queue_size == "auto":
        return EmbeddingQueue(config.queue_min, dim, max_size=config.queue_max)
    return EmbeddingQueue(config.queue_size, dim)


def _copy_towers_that_were_not_saved(criterion: MocoAtc, missing: Any) -> None:
    """After a checkpoint without momentum weights (``strict=False``): copy the online towers anew,
    since the copies still are those of the weights before loading."""
    for copy, name in ((criterion.audio_m, "audio"), (criterion.text_m, "text")):
        if any(key.rpartition(f"{name}_m.module.")[1] for key in missing.missing_keys):
            copy.update(getattr(criterion.model, name), momentum=0.0)
            warnings.warn(
                f"The checkpoint has no momentum copy of the {name} tower; it starts from the "
                "online weights.",
                stacklevel=2,
            )


def _leave_queues_of_other_data(criterion: MocoAtc, _: Any) -> None:
    criterion._keep_queues_of(criterion._loaded_fingerprint)
