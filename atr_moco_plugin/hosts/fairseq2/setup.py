"""Registration of everything fairseq2 should know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

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
from atr_moco_plugin.evaluation import relevance_metrics, retrieval_metrics
from atr_moco_plugin.hosts.fairseq2.config.optimizer import (
    OPTIMIZER,
    RetrievalAdamWConfig,
    create_optimizer,
)
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.training.layers import checkpoint_layers, compile_layers
from atr_moco_plugin.hosts.fairseq2.training.model import (
    ARCHITECTURES,
    FAMILY,
    apply_fsdp,
    convert_state_dict,
)
from atr_moco_plugin.model import RetrievalModel, RetrievalModelConfig, build_model
from atr_moco_plugin.rank import RankLogger

ConfigT = TypeVar("ConfigT")


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
        factory=_build_model,
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
        register_dataset_family(
            container,
            name,
            AudioTextDataset,
            config_class,
            opener=partial(_open_dataset, opener),
        )

    register_component(
        container, Optimizer, OPTIMIZER, config_kls=RetrievalAdamWConfig, factory=create_optimizer
    )

    for descriptor in _metrics():
        container.collection.register_instance(MetricDescriptor, descriptor)


def _build_model(config: RetrievalModelConfig) -> RetrievalModel:
    with one_line_errors():
        return build_model(config)


def _open_dataset(
    opener: Callable[[ConfigT], AudioTextDataset], config: ConfigT
) -> AudioTextDataset:
    with one_line_errors():
        return opener(config)


def _metrics() -> list[MetricDescriptor]:
    parts = {
        "loss_atc": "ATC Loss",
        "loss_atm": "ATM Loss",
        "atm_accuracy": "ATM Accuracy",
        "temperature": "Temperature",
        "alpha": "Alpha",
        "queue_fill": "Queue Fill",
        "queue_size": "Queue Size",
    }
    descriptors = [
        MetricDescriptor(name, title, 100 + i, format_as_float)
        for i, (name, title) in enumerate(parts.items())
    ]
    recalls = [
        (f"{way}_r{k}", f"{way.upper()} R@{k}") for way in ("a2t", "t2a") for k in (1, 5, 10)
    ]
    figures = [("r_sum", "R-sum"), *recalls]
    figures += [(f"reranked_{name}", f"Re-ranked {title}") for name, title in figures]
    descriptors += [
        MetricDescriptor(name, title, 200 + i, format_as_float, higher_better=True)
        for i, (name, title) in enumerate(figures)
    ]
    shown = {d.name for d in descriptors} | {"audio_rankme", "text_rankme"}
    return descriptors + [
        # What has no descriptor would be written to the console too. Any figure may be the score
        # that the best checkpoint is chosen by, and of ranks alone a lower one is better.
        MetricDescriptor(
            name,
            name,
            300,
            format_as_float,
            log=name in shown,
            higher_better="medr" not in name,
        )
        for name in _all_figures()
        if name not in {d.name for d in descriptors}
    ]


def _all_figures() -> list[str]:
    """Names of everything that validation and the rank hook record."""
    ids, rows = torch.arange(2), torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    retrieval = {
        **retrieval_metrics(torch.eye(2), ids, caption_ids=ids),
        **relevance_metrics(torch.eye(2), torch.eye(2).bool()),
    }
    rank = RankLogger.scalars(RankLogger({"audio": rows, "text": rows}).log(0))
    return [
        *retrieval,
        *(f"reranked_{name}" for name in retrieval),
        *rank,
        "audio_fill",
        "text_fill",
    ]
