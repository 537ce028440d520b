"""Decoupled contrastive learning: the in-batch loss without positives in its denominators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from atr_moco_plugin.criterion.config import AtcConfig, CriterionConfig
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.positives import PositivesMode


@dataclass(kw_only=True)
class DclConfig(AtcConfig):
    """Decoupled in-batch contrastive loss; positives by ids."""

    positives: PositivesMode = "clip_or_caption"
    """See :class:`CriterionConfig`."""

    decoupled: bool = True
    """What this criterion is; ``atc`` has it as an option."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.decoupled:
            yield "`decoupled` is False, which is the criterion `atc`: take that one."


class Dcl(Atc):
    """In-batch contrastive loss whose positives are in no denominator (Decoupled Contrastive
    Learning, Yeh et al. 2022): ``atc`` with ``decoupled`` and with positives by ids, by a name of
    its own. :func:`~atr_moco_plugin.criterion.contrastive_loss` has the formula.

    Args:
        model: see :class:`Atc`.
        config: the options.
    """

    config_class: ClassVar[type[CriterionConfig]] = DclConfig
