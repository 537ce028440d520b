"""Audio-text contrastive (ATC) and matching (ATM) losses with momentum queues.

One training step, top to bottom, is :meth:`MocoAtcAtm.forward`, and :meth:`MocoAtc.forward` without
the matching loss. :class:`Atc` (``in_batch``) is the base of both, and of the rivals, each in a
file of its own: ``dcl``, ``m_ltm`` (on ``transport``), ``siglip``, ``sogclr`` (on
``global_contrastive`` and ``running_sums``).

* Losses, pure functions: :func:`contrastive_loss` and :func:`atc_loss` in ``atc``, the second on
  ``cross_entropy``; :func:`atm_loss` and :func:`hard_negatives` in ``atm``; :func:`positive_pairs`.
* ``exchange``: what a step gathers from the other processes. ``pairs``: which pairs the matching
  loss scores, with the draw of the hard negatives. ``matching_start``: in which steps there is a
  matching loss, and the rule by which it begins. ``queue_pair``: what the audio and the text
  queue do together: they are made, compared over processes, grown and emptied.

Here belong losses and what they keep between steps. May not import a model, an encoder, a head,
data or a host: a criterion gets its model, see ``contracts``.
"""

from atr_moco_plugin.criterion.atc import atc_loss, atc_targets, contrastive_loss
from atr_moco_plugin.criterion.atm import atm_loss, hard_negatives, prior_entropy
from atr_moco_plugin.criterion.config import (
    TEMPERATURE_RANGE,
    AtcConfig,
    CriterionConfig,
    MocoAtcAtmConfig,
    MocoAtcConfig,
)
from atr_moco_plugin.criterion.dcl import Dcl, DclConfig
from atr_moco_plugin.criterion.global_contrastive import global_contrastive_loss
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.m_ltm import MLtm, MLtmConfig, MLtmFull
from atr_moco_plugin.criterion.moco_atc import MocoAtc
from atr_moco_plugin.criterion.moco_atc_atm import MocoAtcAtm
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.criterion.siglip import Siglip, SiglipConfig, sigmoid_loss
from atr_moco_plugin.criterion.sogclr import SogClr, SogClrConfig

__all__ = [
    "TEMPERATURE_RANGE",
    "Atc",
    "AtcConfig",
    "CriterionConfig",
    "Dcl",
    "DclConfig",
    "MLtm",
    "MLtmConfig",
    "MLtmFull",
    "MocoAtc",
    "MocoAtcAtm",
    "MocoAtcAtmConfig",
    "MocoAtcConfig",
    "Siglip",
    "SiglipConfig",
    "SogClr",
    "SogClrConfig",
    "atc_loss",
    "atc_targets",
    "atm_loss",
    "contrastive_loss",
    "global_contrastive_loss",
    "hard_negatives",
    "positive_pairs",
    "sigmoid_loss",
    "prior_entropy",
]
