"""Learning from frozen teachers: their saved embeddings say what goes together.

For a batch of N pairs and M teachers with embeddings ``a^m`` and ``u^m``, the estimated
correspondences are ``C_T = mean over m of a^m . u^m / teacher_temperature``, and the loss is the
cross-entropy of the student's logits ``C_S`` against them, along the rows and along the columns
(Primus et al., "Estimated Audio-Caption Correspondences Improve Language-Based Audio Retrieval",
2024)::

    L = w_sup L_sup + w_dist (CE(softmax C_T, log_softmax C_S) + the same of the transposes) / 2

The columns are those of the student's own loss. So with queues they are [batch | queue], and the
teachers' embeddings of the queue's rows are found by their clip and caption ids; only a batch's
columns are in the publication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.criterion.teacher_options import TeacherOptions
from atr_moco_plugin.distributed import checksum
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.tensors.float32 import cosines, unit_norm


def soft_cross_entropy(
    query: Tensor,
    columns: Sequence[Tensor],
    targets: Tensor,
    temperature: Tensor,
    ignore: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy between ``targets`` and ``softmax(query . c / tau)`` over columns ``c``.

    Args:
        query: ``[B, d]``.
        columns: tensors ``[M_i, d]`` whose rows together are the M columns. The gradient flows
            through those that require one. They are copied, since the rows of a queue may be
            overwritten before the backward pass.
        targets: ``[B, M]`` float32, rows sum to 1, without a gradient; 0 where ``ignore`` is true.
        temperature: scalar (or one-element) tensor, tau.
        ignore: ``[B, M]`` bool, columns that take no part in a row.

    Returns:
        Scalar float32.
    """
    with torch.autocast(query.device.type, enabled=False):
        logits = cosines(query, torch.cat([x.float() for x in columns])) / temperature.float()
        if ignore is not None:
            # Finite: 0 * -inf would make the loss NaN.
            logits = logits.masked_fill(ignore, torch.finfo(logits.dtype).min)
        return F.cross_entropy(logits, targets)


class RowsById:
    """Rows of a table that are asked for by their ids, on the CPU.

    Args:
        ids: ``[N]`` int64. Where an id comes more than once, as a caption of several clips or the
            wordings of a class do, its row is the mean of its rows, brought to length 1.
        rows: ``[N, d]`` unit-norm float32; it is not copied where all ids differ.
    """

    def __init__(self, ids: Tensor, rows: Tensor) -> None:
        self.ids, place = torch.unique(ids, return_inverse=True)  # sorted
        if len(self.ids) == len(ids):
            self._rows, self._order = rows, place.argsort()
        else:
            sums = rows.new_zeros(len(self.ids), rows.size(1), dtype=torch.float64)
            self._rows = unit_norm(sums.index_add_(0, place, rows.double()))
            self._order = torch.arange(len(self.ids))

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self._rows.size(1)

    @property
    def digest(self) -> int:
        """63 bits that change with any id, any bit of a row and whose row it is, and not with the
        order in which they were given."""
        ordered = bool((self._order == torch.arange(len(self._order))).all())
        rows = self._rows if ordered else self._rows[self._order]
        return stable_digest("rows", *(int(checksum(x)) for x in (self.ids, rows)))

    def missing(self, ids: Tensor) -> Tensor:
        """Those of ``[N]`` ids that have no row."""
        return ids[~torch.isin(ids, self.ids)]

    def find(self, ids: Tensor) -> Tensor:
        """``[N, d]``, the row of each of ``[N]`` ids.

        Raises:
            KeyError: of the first id without a row.
        """
        at = torch.searchsorted(self.ids, ids).clamp_(max=len(self.ids) - 1)
        strange = ids[self.ids[at] != ids]
        if len(strange):
            raise KeyError(int(strange[0]))
        return self._rows[self._order[at]]


@dataclass(frozen=True)
class Teacher:
    """Saved embeddings of a model.

    Attributes:
        name: file, for messages.
        clips: unit-norm embeddings by clip id.
        captions: of the same width, by caption id.
    """

    name: str
    clips: RowsById
    captions: RowsById


class Teachers:
    """Frozen teachers of a criterion. Their embeddings stay on the CPU, in a file mapped into
    memory where they come from one: a device gets those of a step's columns alone.

    Args:
        members: one or more.
        options: temperature and weights.
    """

    def __init__(self, members: Sequence[Teacher], options: TeacherOptions) -> None:
        self.members = tuple(members)
        self._options = options
        digests = sorted(x for m in members for x in (m.clips.digest, m.captions.digest))
        self.digest = stable_digest("teachers", *digests)
        """63 bits, equal for the same embeddings in any order of the teachers."""

    def targets(
        self, clip_ids: Tensor, caption_ids: Tensor, own: slice, ignore: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the teachers say of the items ``own`` of this process.

        Args:
            clip_ids: ``[M]`` int64, of the columns, the items of this process among them. Columns
                of -1 are of nobody, and ``ignore`` has them.
            caption_ids: ``[M]`` int64.
            own: which columns the B items of this process are.
            ignore: ``[B, M]`` bool, columns that take no part in a row.

        Returns:
            ``[B, M]`` float32 twice, rows sum to 1: the captions for each clip, and the clips for
            each caption; on the device of the ids.

        Raises:
            InputError: for a mixture of two clips, and an item that a teacher has not embedded.
        """
        if clip_ids.dim() > 1:
            raise InputError(MIXTURES)
        device = clip_ids.device
        a, u = (
            torch.cat([self._find(kind, m, ids.cpu()) for m in self.members], dim=1).to(device)
            for kind, ids in (("clips", clip_ids), ("captions", caption_ids))
        )
        scale = len(self.members) * self._options.teacher_temperature
        found = []
        for query, columns in ((a[own], u), (u[own], a)):
            logits = cosines(query, columns) / scale
            if ignore is not None:
                logits.masked_fill_(ignore, float("-inf"))
            found.append(logits.softmax(dim=1))
        return found[0], found[1]

    def _find(self, kind: str, teacher: Teacher, ids: Tensor) -> Tensor:
        table: RowsById = getattr(teacher, kind)
        try:
            return table.find(ids.where(ids >= 0, table.ids[0]))
        except KeyError as ex:
            raise InputError(
                f"{teacher.name} has no embedding of the {kind[:-1]} with the id {ex.args[0]}, "
                "which is in the batch or in the queue: teachers embed all clips and captions that "
                "are trained on."
            ) from None


MIXTURES = (
    "`teachers` have embeddings of clips and not of mixtures of two clips: leave `dataset.mix` or "
    "`teachers` out."
)
"""Why a batch of mixtures is refused."""


def teacher_loss(
    audio: Tensor,
    text: Tensor,
    audio_columns: Sequence[Tensor],
    text_columns: Sequence[Tensor],
    targets: tuple[Tensor, Tensor],
    temperature: Tensor,
    ignore: Tensor | None = None,
) -> Tensor:
    """Mean of both directions of :func:`soft_cross_entropy` against the teachers.

    Args:
        audio: ``[B, d]`` unit-norm audio embeddings of the student.
        text: ``[B, d]`` unit-norm text embeddings of the student.
        audio_columns: tensors ``[M_i, d]``, the columns of the text queries.
        text_columns: tensors ``[M_i, d]``, the columns of the audio queries.
        targets: of :meth:`Teachers.targets`.
        temperature: the student's, one element.
        ignore: ``[B, M]`` bool, columns that take no part in a row.

    Returns:
        Scalar float32.
    """
    a2t = soft_cross_entropy(audio, text_columns, targets[0], temperature, ignore)
    t2a = soft_cross_entropy(text, audio_columns, targets[1], temperature, ignore)
    return (a2t + t2a) / 2
