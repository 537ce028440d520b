"""Registration of everything fairseq2 should know."""

from __future__ import annotations

from typing import Any

import torch
from fairseq2.composition import register_dataset_family, register_model_family
from fairseq2.metrics import format_as_float
from fairseq2.metrics.recorders import MetricDescriptor
from fairseq2.models import ModelFamily
from fairseq2.recipe.component import register_component
from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer
from torch.nn import Module
from torch.optim import Optimizer

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.registry import DATASETS
from atr_moco_plugin.evaluation.metrics import higher_is_better
from atr_moco_plugin.evaluation.split_figures import figure_names
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY
from atr_moco_plugin.hosts.fairseq2.config.optimizer import (
    OPTIMIZER,
    RetrievalAdamWConfig,
    create_optimizer,
)
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.integers import keeping_integers
from atr_moco_plugin.hosts.fairseq2.training.layers import checkpoint_layers, compile_layers
from atr_moco_plugin.hosts.fairseq2.training.model import apply_fsdp, convert_state_dict
from atr_moco_plugin.model import RetrievalModelConfig
from atr_moco_plugin.model.architectures import ARCHITECTURES
from atr_moco_plugin.model.building import build_plain_model
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.rank.drift import LONGEST
from atr_moco_plugin.report.titles import MEASURES, TITLES


def register_all(container: DependencyContainer) -> None:
    """Register the model family, the data set families, the optimizer and the metrics.

    Both the entry point and a recipe's ``register`` may call it; the second call does nothing.
    """
    if FAMILY in container.iter_keys(ModelFamily):
        return

    register_model_family(
        container,
        FAMILY,
        kls=Module,  # built as a RetrievalModel, sharded as the criterion around it
        config_kls=RetrievalModelConfig,
        # The recipe adds adapters, once `init` has loaded the weights of another run.
        factory=one_line_errors()(keeping_integers(build_plain_model)),
        supports_meta=False,
        state_dict_converter=convert_state_dict,
        compiler=compile_layers,
        fsdp_applier=apply_fsdp,
        layerwise_ac_applier=checkpoint_layers,
    )
    architecture = ConfigRegistrar(container, RetrievalModelConfig)
    for name, make in ARCHITECTURES.items():
        architecture(name)(make)

    for name, (config_class, opener) in DATASETS.items():
        open_checked: Any = one_line_errors()(opener)
        register_dataset_family(
            container,
            name,
            AudioTextDataset,
            config_class,
            opener=open_checked,
        )

    register_component(
        container, Optimizer, OPTIMIZER, config_kls=RetrievalAdamWConfig, factory=create_optimizer
    )

    for descriptor in _metrics():
        container.collection.register_instance(MetricDescriptor, descriptor)


def _metrics() -> list[MetricDescriptor]:
    """A title for each figure on the console; any other one is recorded under its own name."""
    shown = {*TITLES, "audio_rankme", "text_rankme"}
    names = dict.fromkeys([*TITLES, *_recorded()])
    return [
        # A figure without a descriptor would be written to the console too. Any one may be the
        # score that chooses the best checkpoint; a lower one is better only for median ranks.
        MetricDescriptor(
            name,
            TITLES.get(name, name),
            100 + number,
            format_as_float,
            log=name in shown,
            higher_better=name not in MEASURES and higher_is_better(name),
        )
        for number, name in enumerate(names)
    ]


def _recorded() -> list[str]:
    """Names of all figures that validation and the rank hook record."""
    rows = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    record = RankLogger({"audio": rows, "text": rows}).log(0)
    assert record is not None
    return [
        *figure_names(one_clip_each=True, reranks=True),
        *figure_names(one_clip_each=False, reranks=True),
        *RankLogger.scalars(record),
        *(
            f"{modality}_{name}"
            for modality in ("audio", "text")
            for name in ("fill", "different", *(f"same_{2**k}x" for k in range(LONGEST)))
        ),
    ]
