"""Audio-text contrastive (ATC) and matching (ATM) losses with momentum queues.

Pure functions: :func:`atc_loss`, :func:`atc_targets`, :func:`contrastive_loss`,
:func:`hard_negatives`, :func:`atm_loss`, :func:`positive_pairs`. Stateful modules around them:
:class:`MocoAtcAtm`, :class:`MocoAtc`, :class:`Atc`.
"""

from atr_moco_plugin.criterion.atc import atc_loss, atc_targets, contrastive_loss
from atr_moco_plugin.criterion.atm import PRIOR_ENTROPY, atm_loss, hard_negatives
from atr_moco_plugin.criterion.config import (
    TEMPERATURE_RANGE,
    AtcConfig,
    MocoAtcAtmConfig,
    MocoAtcConfig,
)
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.moco_atc import MocoAtc
from atr_moco_plugin.criterion.moco_atc_atm import MocoAtcAtm
from atr_moco_plugin.criterion.positives import positive_pairs

__all__ = [
    "PRIOR_ENTROPY",
    "TEMPERATURE_RANGE",
    "Atc",
    "AtcConfig",
    "MocoAtc",
    "MocoAtcAtm",
    "MocoAtcAtmConfig",
    "MocoAtcConfig",
    "atc_loss",
    "atc_targets",
    "atm_loss",
    "contrastive_loss",
    "hard_negatives",
    "positive_pairs",
]
