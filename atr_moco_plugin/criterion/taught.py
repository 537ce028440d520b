"""What criteria have of teachers: where they are kept, and the loss with what they add to it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from atr_moco_plugin.config import Config
from atr_moco_plugin.criterion.teacher_options import TeacherOptions
from atr_moco_plugin.criterion.teachers import Teachers, teacher_loss
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.compile import not_compiled


class StudentLogits(NamedTuple):
    """What a criterion's own logits are made of: B rows of this process and M columns.

    Attributes:
        audio: ``[B, d]`` unit-norm audio embeddings of this process.
        text: ``[B, d]`` unit-norm text embeddings of this process.
        audio_columns: tensors ``[M_i, d]``, M rows together, for the text rows.
        text_columns: tensors ``[M_i, d]``, for the audio rows.
        clip_ids: ``[M]`` int64, of the columns.
        caption_ids: ``[M]`` int64.
        own: which columns the rows of this process are.
        ignore: ``[B, M]`` bool, columns that take no part in a row.
    """

    audio: Tensor
    text: Tensor
    audio_columns: Sequence[Tensor]
    text_columns: Sequence[Tensor]
    clip_ids: Tensor
    caption_ids: Tensor
    own: slice
    ignore: Tensor | None = None


class TaughtCriterion(nn.Module):
    """Base of the criteria: a module that learns from teachers where its options are
    :class:`TeacherOptions` and name some. Else it has no state of its own.

    Args:
        config: the options.

    Attributes:
        teachers: what ``config.teachers`` names, once :meth:`set_teachers` was called.
    """

    measures: ClassVar[tuple[str, ...]]

    teachers: Teachers | None
    teachers_digest: Tensor
    config: Any
    temperature: nn.Parameter

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.teachers = None
        if not self.is_taught:
            return
        # On the instance: only one with teachers has this measure.
        self.__dict__["measures"] = (*self.measures, "loss_teacher")
        # Of the embeddings that were learned from, 0 before; they are in no state themselves.
        self.register_buffer("teachers_digest", torch.zeros(1, dtype=torch.int64))

    @property
    def is_taught(self) -> bool:
        """Whether teachers are named; never where the options are not those of teachers."""
        return isinstance(self.config, TeacherOptions) and bool(self.config.teachers)

    def set_teachers(self, teachers: Teachers) -> None:
        """Give the criterion what ``config.teachers`` names, before its first training pass.

        :func:`atr_moco_plugin.teaching.use_teachers` reads the files and calls it.

        Raises:
            InputError: where ``config.teachers`` is empty, and for other teachers than those that
                a loaded state has learned from.
        """
        if not self.is_taught:
            raise InputError("The criterion has no `teachers` in its options: name them there.")
        _check_same(int(self.teachers_digest), teachers.digest)
        self.teachers_digest.fill_(teachers.digest)
        self.teachers = teachers

    def _check_teachers(self) -> None:
        """Before a training pass."""
        if self.is_taught and self.teachers is None:
            raise InputError(
                "`teachers` are named, but their embeddings are not there: call "
                "`atr_moco_plugin.teaching.use_teachers(criterion)` before the first step."
            )

    @not_compiled
    def _with_teachers(
        self, loss: Tensor, student: StudentLogits, weight: Tensor | float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the items of this process with what teachers add to it, and the measures of
        that. In evaluation mode it is the loss alone: nobody has embedded what is evaluated.

        Args:
            loss: the criterion's own, mean over the items.
            student: what it was made of.
            weight: of this process in a mean over all, for the measures.
        """
        if not self.is_taught:
            return loss, {}
        if not self.training or self.teachers is None:
            return loss, {"loss_teacher": loss.new_full((), float("nan"))}
        ignore = _without_nobody(student)
        targets = self.teachers.targets(student.clip_ids, student.caption_ids, student.own, ignore)
        taught = teacher_loss(
            student.audio,
            student.text,
            student.audio_columns,
            student.text_columns,
            targets,
            self.temperature,
            ignore,
        )
        weighted = self.config.supervised_weight * loss + self.config.teacher_weight * taught
        return weighted, {"loss_teacher": (taught * weight).detach()}

    def _reset_teachers(self) -> None:
        """Back to a state that has learned from nobody yet."""
        if self.is_taught:
            self.teachers_digest.fill_(0 if self.teachers is None else self.teachers.digest)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        name = f"{prefix}teachers_digest"
        if not self.is_taught:
            if int(state_dict.pop(name, 0)):
                raise InputError(
                    "This state has learned from `teachers`, and the criterion has none: name "
                    "them, or start a new run from its weights."
                )
        else:
            present = self.teachers_digest.clone()
            if name not in state_dict:
                warnings.warn(
                    "The checkpoint has not learned from `teachers`; training goes on with them.",
                    stacklevel=2,
                )
            saved = state_dict.setdefault(name, present)
            _check_same(int(present), int(saved))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _without_nobody(student: StudentLogits) -> Tensor | None:
    """Columns that take no part: those of ``ignore``, and rows of a queue that were not finite when
    they were written, whose ids are -1 and which no teacher knows."""
    if student.clip_ids.dim() > 1:  # mixtures, which are refused
        return student.ignore
    nobody = (student.clip_ids < 0).expand(len(student.audio), -1)
    return nobody if student.ignore is None else nobody | student.ignore


def _check_same(one: int, other: int) -> None:
    """Refuse two digests of teachers that differ; 0 is that of none."""
    if one and other and one != other:
        raise InputError(
            "The state has learned from other `teachers` than these: name the same files with the "
            "same content, or start a new run from its weights."
        )
