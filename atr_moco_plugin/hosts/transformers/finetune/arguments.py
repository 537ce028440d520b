"""``Trainer``'s arguments, the optimizer and the schedule that a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import TrainingArguments
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

from atr_moco_plugin.evaluation.metrics import higher_is_better
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.prepare import settled
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.optim.param_groups import parameter_groups


def training_arguments(config: FinetuneConfig, out: Path) -> TrainingArguments:
    """``Trainer``'s arguments for a run in an output folder."""
    regime, trainer = config.regime, config.trainer
    every = settled(regime.validate_every_n_steps)
    return TrainingArguments(
        str(out),
        max_steps=settled(regime.num_steps),
        per_device_train_batch_size=settled(config.dataset.batch_size),
        gradient_accumulation_steps=trainer.grad_accumulation.num_batches,
        max_grad_norm=trainer.max_grad_norm or 0.0,
        bf16=trainer.mixed_precision.mode == "auto",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=regime.checkpoint_every_n_steps or every,
        save_total_limit=2,  # the best one and the last
        metric_for_best_model=regime.score_metric,
        greater_is_better=higher_is_better(regime.score_metric),
        logging_steps=settled(regime.publish_metrics_every_n_steps),
        logging_nan_inf_filter=False,
        seed=config.common.seed,
        data_seed=config.common.seed,
        remove_unused_columns=False,
        label_names=["clip_id", "caption_id"],
        ignore_data_skip=True,  # the loader has its own place in the data
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def make_optimizers(config: FinetuneConfig, model: TrainerModel) -> tuple[Any, Any]:
    """The optimizer of a model and its schedule, as ``Trainer`` takes them."""
    section, schedule = config.optimizer.config, config.lr_scheduler.config
    groups = parameter_groups(
        model.criterion,
        section.weight_decay,
        lr=section.lr,
        audio_lr=section.audio_lr,
        text_lr=section.text_lr,
        temperature_lr=section.temperature_lr,
        layer_decay=section.layer_decay,
        head_lr_scale=section.head_lr_scale,
    )
    beta1, beta2 = section.betas
    optimizer = AdamW(groups, lr=section.lr or 1e-3, betas=(beta1, beta2), eps=section.eps)
    scheduler = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        schedule.num_warmup_steps or 0,
        settled(config.regime.num_steps),
        min_lr_rate=schedule.final_lr_scale,
    )
    return optimizer, scheduler
