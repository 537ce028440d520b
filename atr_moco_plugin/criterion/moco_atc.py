"""The contrastive momentum criterion: a model, its momentum copies, the queues and the temperature.

One training step, top to bottom, is :meth:`MocoAtc.forward`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from atr_moco_plugin.contracts import DualEncoder, Inputs, Module
from atr_moco_plugin.criterion.atc import atc_loss, contrastive_loss
from atr_moco_plugin.criterion.chunks import encode
from atr_moco_plugin.criterion.config import CriterionConfig, MocoAtcConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch, gather_batch
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.momentum_factor import MomentumFactor
from atr_moco_plugin.criterion.positives import join_ids, positive_pairs
from atr_moco_plugin.criterion.queue_pair import (
    check_queues_agree,
    clear_queues_of_other_data,
    grow_queues,
    make_queue,
)
from atr_moco_plugin.criterion.queue_start import QueueStart, add_rows
from atr_moco_plugin.criterion.shared_weights import (
    copy_towers_that_were_not_saved,
    fill_in_shared,
    leave_out_shared,
)
from atr_moco_plugin.criterion.taught import StudentLogits
from atr_moco_plugin.distributed import gather, mean_weight
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.optim.step_hook import Attachment
from atr_moco_plugin.queue import EmbeddingQueue, finite_rows
from atr_moco_plugin.tensors.compile import not_compiled

QUEUE_CHECK_EVERY = 100
"""Optimizer steps between two comparisons of the queues over processes; each reads them once."""


class MocoAtc(Atc):
    """Contrastive loss against momentum queues with momentum soft targets.

    Args:
        model: the online model. Its ``audio`` and ``text`` towers are copied as they are now, so
            load pretrained weights first.
        config: the options.
    """

    config_class: ClassVar[type[CriterionConfig]] = MocoAtcConfig

    measures: ClassVar[tuple[str, ...]] = (
        *(*Atc.measures, "alpha", "momentum", "queue_fill", "queue_size", "queue_rows"),
    )

    config: MocoAtcConfig
    num_steps: Tensor
    data_fingerprint: Tensor

    def __init__(self, model: DualEncoder, config: MocoAtcConfig) -> None:
        super().__init__(model, config)
        averages = config.keys == "momentum"
        self.audio_m = MomentumCopy(model.audio) if averages else None
        self.text_m = MomentumCopy(model.text) if averages else None
        self.audio_queue = make_queue(config, model.embed_dim)
        self.text_queue = make_queue(config, model.embed_dim)
        self.queue_start = QueueStart(config)
        self.momentum_factor = MomentumFactor(config)
        self._growth_limit = self.audio_queue.max_size
        self.register_buffer("num_steps", torch.zeros(1, dtype=torch.int64))
        # Digest of what `set_data` was given, 0 before. A loaded state may be of other data.
        self.register_buffer("data_fingerprint", torch.zeros(1, dtype=torch.int64))
        self._loaded_fingerprint = 0
        self._num_steps = 0  # mirrors the buffer, so that no step waits for the device
        self._steps_here = 0  # made by this process, equal on all
        self._rows_used = 0  # of the queue, in the last pass
        self.register_state_dict_post_hook(leave_out_shared)
        self.register_load_state_dict_post_hook(copy_towers_that_were_not_saved)
        self.register_load_state_dict_post_hook(_clear_queues_of_other_data)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """The queue of each modality."""
        return {"audio": self.audio_queue, "text": self.text_queue}

    @property
    def key_towers(self) -> dict[str, Module]:
        """Modality to the tower that makes its keys, the rows of its queue."""
        return {"audio": self.model.audio, "text": self.model.text, **self.momentum_copies}

    @property
    def momentum_copies(self) -> dict[str, MomentumCopy]:
        """Modality to the momentum copy of its tower; none where ``keys`` is ``online``."""
        copies = {"audio": self.audio_m, "text": self.text_m}
        return {name: copy for name, copy in copies.items() if copy is not None}

    @property
    def alpha(self) -> float:
        """Weight of the soft targets at this step of the warm-up."""
        warmup = self.config.alpha_warmup_steps
        progress = min(1.0, self._num_steps / warmup) if warmup else 1.0
        return self.config.alpha * progress

    @property
    def _shown_momentum(self) -> float:
        """Factor of the momentum copies in the step that comes next; 0 where there are none, NaN
        where it depends on the length of a run and there is none, as in an evaluation."""
        if self.config.keys == "online":
            return 0.0
        if not self.momentum_factor.is_known(self.total_steps):
            return math.nan
        return self.momentum_factor.at(self._num_steps, self.total_steps)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`. The first pass or :meth:`attach` makes new copies."""
        super().reset_parameters()
        self.num_steps.zero_()
        self.data_fingerprint.zero_()
        self._num_steps = self._steps_here = self._loaded_fingerprint = 0
        for part in (self.audio_queue, self.text_queue, self.queue_start, self.momentum_factor):
            part.reset_parameters()
        for copy in self.momentum_copies.values():
            copy.reset_parameters()

    def attach(self, optimizers: Optimizer | Sequence[Optimizer]) -> Attachment:
        """See :meth:`Atc.attach`."""
        self._start_copies()
        return super().attach(optimizers)

    def on_optimizer_step(self) -> None:
        """See :meth:`Atc.on_optimizer_step`; moves the momentum copies, counts the step, and lets
        the queues grow where ``queue_size`` is ``auto``. Every process calls it.

        In the first step of a job and in every hundredth the queues of all processes are compared.

        Raises:
            ProcessesDifferError: on every process, where the queues differ.
        """
        super().on_optimizer_step()
        # Every process has to take part in the comparison. So it counts from the start of the job:
        # the loaded number of steps may differ, where one process loaded another state.
        if self._steps_here % QUEUE_CHECK_EVERY == 0:
            check_queues_agree(self.queues, self._steps_here)
        self._steps_here += 1
        for name, copy in self.momentum_copies.items():
            momentum = self.momentum_factor.at(self._num_steps, self.total_steps)
            copy.update(getattr(self.model, name), momentum)
        pairs = self.momentum_factor.next_step()
        self._num_steps += 1
        self.num_steps.fill_(self._num_steps)
        self.queue_start.look(self.queues, self._num_steps, pairs, self.total_steps)
        warm = self.queue_start.usable(self._num_steps, self.audio_queue) == self.audio_queue.size
        if warm and self.audio_queue.size < self._growth_limit and self.audio_queue.refilled:
            grow_queues(self.queues, self._growth_limit, self.num_steps.device)

    def on_step_skipped(self) -> None:
        """See :meth:`Atc.on_step_skipped`."""
        super().on_step_skipped()
        self.momentum_factor.next_step()

    def limit_growth(self, rows: int) -> None:
        """Let ``queue_size: auto`` grow to this many rows at most, such as the pairs of an epoch: a
        longer queue holds every item more than once. It is not part of the state.

        Args:
            rows: above ``queue_max`` or below the present size it changes nothing.
        """
        self._growth_limit = min(rows, self.audio_queue.max_size)

    def set_data(self, fingerprint: str) -> None:
        """Name the data that the clip and caption ids belong to.

        The name is saved with the queues. Queues of other data are emptied, with a warning, whether
        they were loaded before or are loaded later: their ids mean other items, and their
        embeddings are no negatives of these.

        Args:
            fingerprint: any text that no other data set has, such as
                ``AudioTextDataset.fingerprint()``.
        """
        saved, present = int(self.data_fingerprint), stable_digest("data", fingerprint)
        self.data_fingerprint.fill_(present)
        clear_queues_of_other_data(self.queues, self.queue_start, saved, present)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`Atc.forward`. In training mode the keys are enqueued."""
        self._start_pass()
        a, _, a_m = encode(self.model.audio, audio, self.chunk_size, momentum=self.audio_m)
        u, _, u_m = encode(self.model.text, text, self.chunk_size, momentum=self.text_m)
        self._check_batch(a, u, clip_ids, caption_ids)
        batch = gather_batch(a_m, u_m, clip_ids, caption_ids)
        loss, losses = self._atc(a, u, batch)
        self._enqueue(batch)
        return {"loss": loss, **losses, **self._measures()}

    @not_compiled
    def _start_pass(self) -> None:
        super()._start_pass()
        if self._trains:
            self.momentum_factor.check(self.total_steps)
        self.queue_start.check(self.total_steps)
        self._start_copies()

    def _start_copies(self) -> None:
        for name, copy in self.momentum_copies.items():
            copy.start(getattr(self.model, name))

    @not_compiled
    def _atc(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the online embeddings ``a`` and ``u`` with that of teachers, and both alone."""
        # Views, which the enqueue overwrites: `atc_loss` has its gradient by then, ids are copied.
        self._rows_used = self.queue_start.usable(self._num_steps, self.audio_queue)
        rows = self.audio_queue.newest_rows(self._rows_used)
        audio_queue, text_queue = (queue.valid[0][rows] for queue in self.queues.values())
        queue_clips, queue_captions = (x[rows] for x in self.audio_queue.ids)
        ids = join_ids(batch.clip_ids, queue_clips), join_ids(batch.caption_ids, queue_captions)
        own = batch.clip_ids[batch.own], batch.caption_ids[batch.own]
        positives = positive_pairs(*own, *ids, self.config.positives)
        ignore = None
        if self.config.queue_positives == "ignore":
            ignore = positives.clone()
            ignore[:, : len(batch.a)] = False
        online = None
        if self.config.columns != "momentum":
            all_a, all_u = gather(torch.cat([a, u], 1), grad=True, counts=batch.counts).chunk(2, 1)
            online = all_a, all_u
        instead = online if self.config.columns == "online" else None
        loss_atc = atc_loss(
            a, u, batch.a, batch.u, audio_queue, text_queue, positives, self.temperature,
            self.alpha, ignore=ignore, first_row=batch.own.start, online_columns=instead,
        )  # fmt: skip
        if online is not None and self.config.columns == "both":
            in_batch = positives[:, : len(batch.a)]
            loss_atc = (loss_atc + contrastive_loss(a, u, *online, in_batch, self.temperature)) / 2
        first = instead or (batch.a, batch.u)
        columns = (first[0], audio_queue), (first[1], text_queue)
        student = StudentLogits(a, u, *columns, *ids, batch.own, ignore)
        weight = mean_weight(len(a), len(batch.a))
        loss, of_teachers = self._with_teachers(loss_atc, student, weight)
        return loss * weight, {"loss_atc": (loss_atc * weight).detach(), **of_teachers}

    @not_compiled
    def _enqueue(self, batch: GlobalBatch) -> None:
        """Write the keys of all processes into the queues, in training."""
        if not self._trains:
            return
        self.momentum_factor.saw(sum(batch.counts))
        ids = batch.clip_ids, batch.caption_ids
        finite = finite_rows(batch.a, batch.u)  # row k of both queues stays the same item
        self.audio_queue.enqueue(batch.a, *ids, finite=finite)
        self.text_queue.enqueue(batch.u, *ids, finite=finite)

    @not_compiled
    def _measures(self) -> dict[str, Tensor]:
        numbers = {
            "alpha": self.alpha,
            "momentum": self._shown_momentum,
            "queue_fill": len(self.audio_queue) / max(self.audio_queue.size, 1),
            "queue_size": self.audio_queue.size,
            "queue_rows": self._rows_used,
        }
        return {
            "temperature": self.temperature.detach().squeeze(),
            # Filled on the device: a copy from the host would wait for it.
            **{name: self.temperature.new_full((), x) for name, x in numbers.items()},
        }

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        present = self.data_fingerprint.clone()  # checkpoints of version 0.1.0 have none
        state_dict.setdefault(f"{prefix}data_fingerprint", torch.zeros_like(present))
        fill_in_shared(self, state_dict, prefix)
        add_rows(state_dict, prefix, self.queue_start, self.audio_queue)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_steps = int(self.num_steps)
        self._loaded_fingerprint = int(self.data_fingerprint)
        if int(present):
            self.data_fingerprint.copy_(present)


def _clear_queues_of_other_data(criterion: MocoAtc, _: Any) -> None:
    saved, present = criterion._loaded_fingerprint, int(criterion.data_fingerprint)
    clear_queues_of_other_data(criterion.queues, criterion.queue_start, saved, present)
