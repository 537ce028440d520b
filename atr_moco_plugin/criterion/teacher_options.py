"""Options of learning from teachers, which the configurations of the criteria share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from atr_moco_plugin.config import Config, in_range


@dataclass(kw_only=True)
class TeacherOptions(Config):
    """Estimated correspondences (Primus et al. 2024): frozen models say which clips and captions
    of a batch, and of the queues, go together, see :mod:`atr_moco_plugin.criterion.teachers`."""

    teachers: list[str] = field(default_factory=list)
    """Files of saved embeddings, training runs or bundles; empty trains without a teacher."""

    teacher_temperature: float = 0.05
    """Divides the teachers' cosines. It is not learned, and need not be the student's."""

    teacher_weight: float = 1.0
    """Weight of the cross-entropy against the teachers. A second stage has 1."""

    supervised_weight: float = 1.0
    """Weight of the criterion's own contrastive loss beside it. A second stage has 0."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "teacher_temperature", above=0)
        yield from in_range(self, "teacher_weight", "supervised_weight", least=0)
        if self.teacher_weight == self.supervised_weight == 0:
            yield (
                "`teacher_weight` and `supervised_weight` are both 0, which leaves nothing to "
                "learn: set one above 0."
            )
        if self.teachers:
            twice = [x for i, x in enumerate(self.teachers) if x in self.teachers[:i]]
            if twice:
                yield f"`teachers` has {twice[0]} twice: name each once."
            return
        own = {name: f for name, f in TeacherOptions.__dataclass_fields__.items()}
        for name in ("teacher_temperature", "teacher_weight", "supervised_weight"):
            if getattr(self, name) != own[name].default:
                yield (
                    f"`{name}` is {getattr(self, name)}, but there are no `teachers`: name some, "
                    f"or leave {name} out."
                )
