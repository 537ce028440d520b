"""The contrastive momentum criterion: a model, its momentum copies, the queues and the temperature.

One training step, top to bottom, is :meth:`MocoAtc.forward`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from atr_moco_plugin.contracts import DualEncoder, Inputs, Module
from atr_moco_plugin.criterion.atc import atc_loss
from atr_moco_plugin.criterion.chunks import encode
from atr_moco_plugin.criterion.config import CriterionConfig, MocoAtcConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch, gather_batch
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.positives import join_ids, positive_pairs
from atr_moco_plugin.criterion.queue_pair import (
    check_queues_agree,
    clear_queues_of_other_data,
    grow_queues,
    make_queue,
)
from atr_moco_plugin.criterion.shared_weights import fill_in_shared, leave_out_shared
from atr_moco_plugin.distributed import mean_weight
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

    measures: ClassVar[tuple[str, ...]] = (*Atc.measures, "alpha", "queue_fill", "queue_size")

    config: MocoAtcConfig
    num_steps: Tensor
    data_fingerprint: Tensor

    def __init__(self, model: DualEncoder, config: MocoAtcConfig) -> None:
        super().__init__(model, config)
        self.audio_m = MomentumCopy(model.audio)
        self.text_m = MomentumCopy(model.text)
        self.audio_queue = make_queue(config, model.embed_dim)
        self.text_queue = make_queue(config, model.embed_dim)
        self._growth_limit = self.audio_queue.max_size
        self.register_buffer("num_steps", torch.zeros(1, dtype=torch.int64))
        # Digest of what `set_data` was given, 0 before. A loaded state may be of other data.
        self.register_buffer("data_fingerprint", torch.zeros(1, dtype=torch.int64))
        self._loaded_fingerprint = 0
        self._num_steps = 0  # mirrors the buffer, so that no step waits for the device
        self._steps_here = 0  # made by this process, equal on all
        self.register_state_dict_post_hook(leave_out_shared)
        self.register_load_state_dict_post_hook(_copy_towers_that_were_not_saved)
        self.register_load_state_dict_post_hook(_clear_queues_of_other_data)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """The queue of each modality."""
        return {"audio": self.audio_queue, "text": self.text_queue}

    @property
    def key_towers(self) -> dict[str, Module]:
        """Modality to the tower that makes its keys, the rows of its queue."""
        return {"audio": self.audio_m, "text": self.text_m}

    @property
    def alpha(self) -> float:
        """Weight of the soft targets at this step of the warm-up."""
        warmup = self.config.alpha_warmup_steps
        progress = min(1.0, self._num_steps / warmup) if warmup else 1.0
        return self.config.alpha * progress

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`. The momentum copies are made anew from the towers when
        the first pass begins, or at :meth:`attach`."""
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
        self.audio_m.update(self.model.audio, self.config.momentum)
        self.text_m.update(self.model.text, self.config.momentum)
        self._num_steps += 1
        self.num_steps.fill_(self._num_steps)
        warm = self._num_steps >= self.config.queue_warmup_steps
        if warm and self.audio_queue.size < self._growth_limit and self.audio_queue.refilled:
            grow_queues(self.queues, self._growth_limit, self.num_steps.device)

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
        clear_queues_of_other_data(self.queues, saved, present)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`Atc.forward`. In training mode the momentum embeddings are enqueued."""
        self._start_pass()
        a, _, a_m = encode(self.model.audio, audio, self.chunk_size, momentum=self.audio_m)
        u, _, u_m = encode(self.model.text, text, self.chunk_size, momentum=self.text_m)
        batch = self._gather(a_m, u_m, clip_ids, caption_ids)
        loss = self._atc(a, u, batch)
        self._enqueue(batch)
        return {"loss": loss, **self._measures(loss)}

    @not_compiled
    def _start_pass(self) -> None:
        super()._start_pass()
        self._start_copies()

    def _start_copies(self) -> None:
        self.audio_m.start(self.model.audio)
        self.text_m.start(self.model.text)

    @not_compiled
    def _gather(
        self, a_m: Tensor, u_m: Tensor, clip_ids: Tensor, caption_ids: Tensor
    ) -> GlobalBatch:
        return gather_batch(a_m, u_m, clip_ids, caption_ids)

    @not_compiled
    def _atc(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> Tensor:
        """Contrastive loss of the online embeddings ``a`` and ``u``."""
        # Views, which the enqueue overwrites: `atc_loss` has found its gradient by then, and the
        # ids are copied below.
        rows = slice(None if self._num_steps >= self.config.queue_warmup_steps else 0)
        audio_queue, text_queue = (queue.valid[0][rows] for queue in self.queues.values())
        queue_clips, queue_captions = (x[rows] for x in self.audio_queue.ids)
        positives = positive_pairs(
            batch.clip_ids[batch.own],
            batch.caption_ids[batch.own],
            join_ids(batch.clip_ids, queue_clips),
            join_ids(batch.caption_ids, queue_captions),
            self.config.positives,
        )
        ignore = None
        if self.config.queue_positives == "ignore":
            ignore = positives.clone()
            ignore[:, : len(batch.a_m)] = False
        loss = atc_loss(
            a,
            u,
            batch.a_m,
            batch.u_m,
            audio_queue,
            text_queue,
            positives,
            self.temperature,
            self.alpha,
            ignore=ignore,
            first_row=batch.own.start,
        )
        return loss * mean_weight(len(a), len(batch.a_m))

    @not_compiled
    def _enqueue(self, batch: GlobalBatch) -> None:
        """Write the momentum embeddings of all processes into the queues, in training."""
        if not self._trains:
            return
        ids = batch.clip_ids, batch.caption_ids
        finite = finite_rows(batch.a_m, batch.u_m)  # row k of both queues stays the same item
        self.audio_queue.enqueue(batch.a_m, *ids, finite=finite)
        self.text_queue.enqueue(batch.u_m, *ids, finite=finite)

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
        present, name = self.data_fingerprint.clone(), f"{prefix}data_fingerprint"
        # Checkpoints of version 0.1.0 have none.
        state_dict.setdefault(name, torch.zeros_like(present))
        fill_in_shared(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_steps = int(self.num_steps)
        self._loaded_fingerprint = int(self.data_fingerprint)
        if int(present):
            self.data_fingerprint.copy_(present)


def _copy_towers_that_were_not_saved(criterion: MocoAtc, missing: Any) -> None:
    """After a checkpoint without momentum weights (``strict=False``): copy the online towers, since
    the copies still have the weights from before loading."""
    for copy, name in ((criterion.audio_m, "audio"), (criterion.text_m, "text")):
        if any(key.rpartition(f"{name}_m.module.")[1] for key in missing.missing_keys):
            copy.update(getattr(criterion.model, name), momentum=0.0)
            warnings.warn(
                f"The checkpoint has no momentum copy of the {name} tower; it starts from the "
                "online weights.",
                stacklevel=2,
            )


def _clear_queues_of_other_data(criterion: MocoAtc, _: Any) -> None:
    saved, present = criterion._loaded_fingerprint, int(criterion.data_fingerprint)
    clear_queues_of_other_data(criterion.queues, saved, present)
