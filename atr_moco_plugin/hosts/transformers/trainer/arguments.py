"""Options of ``Trainer`` and ``TrainingArguments`` that these models cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.metrics import higher_is_better
from atr_moco_plugin.hosts.transformers.internals import LABEL_SMOOTHING, NEFTUNE, shards_weights
from atr_moco_plugin.hosts.transformers.trainer.metrics import TRAINING_ARGUMENTS

_HALF = (
    "{0}_full_eval=True turns the weights of the model that trains, and its momentum copies, to "
    "half precision for good: leave it out; `{0}` computes in half precision."
)
_DEFAULT_ONLY = {
    "neftune_noise_alpha": NEFTUNE,
    "label_smoothing_factor": LABEL_SMOOTHING,
    "past_index": (
        "past_index asks for an output that a model of two towers has not: leave it out."
    ),
    "jit_mode_eval": "jit_mode_eval cannot trace a model whose batch has ids in it: leave it out.",
    "fp16_full_eval": _HALF.format("fp16"),
    "bf16_full_eval": _HALF.format("bf16"),
}
"""Fields of ``TrainingArguments`` that must have their default, to the reason; some versions lack
some of them."""
_FIGURE = re.compile(r"(.*_)?(r_sum|(a2t|t2a)_(r\d+|medr|map10))(_dup)?")
"""Names of figures, after that of an evaluation set."""


def check_trainer(trainer: Trainer) -> None:
    """Refuse options that would be ignored, give wrong figures, or fail later.

    Raises:
        InputError: one sentence on the first such option.
    """
    for reason in _reasons(trainer, trainer.args):
        raise InputError(reason)


def _reasons(trainer: Trainer, args: TrainingArguments) -> Iterator[str]:
    labels = TRAINING_ARGUMENTS["label_names"]
    if trainer.compute_metrics is not None and trainer.label_names != labels:
        yield (
            f"TrainingArguments.label_names is {trainer.label_names}, but Trainer computes "
            f"metrics only with {labels}: pass **TRAINING_ARGUMENTS."
        )
    if trainer.compute_metrics is not None and args.prediction_loss_only:
        yield (
            "prediction_loss_only=True leaves compute_metrics without embeddings, so that there "
            "would be no figures: leave out one of the two."
        )
    if args.world_size > 1 and not getattr(args.accelerator_config, "even_batches", True):
        yield (
            "accelerator_config.even_batches is off, so that processes would have different "
            "numbers of batches, and one would wait for the others forever: leave it on."
        )
    if args.world_size > 1 and args.ddp_find_unused_parameters is False and _rests(trainer.model):
        yield (
            "ddp_find_unused_parameters is False, but there are steps in which the matching head "
            "has no gradient, after which DDP fails: leave it out, or set `atm_start` to 0 and "
            "`atm_every` to 1 of a criterion that matches."
        )
    if shards_weights(trainer):
        yield (
            "The momentum copies follow whole weights, which FSDP and DeepSpeed take apart: "
            "leave `fsdp` and `deepspeed` out and train with DDP."
        )
    if args.n_gpu > 1:
        yield (
            f"Trainer would spread one process over {args.n_gpu} GPUs (DataParallel), whose "
            "replicas lose what they enqueue: start one process a GPU with torchrun or "
            "accelerate launch, or show one GPU in CUDA_VISIBLE_DEVICES."
        )
    if getattr(trainer, "model_init", None) is not None:
        yield (
            "model_init makes a new model for each training, whose momentum copies this callback "
            "would not move: give Trainer the `model`, and make a Trainer and a MocoCallback for "
            "each trial."
        )
    if "inputs" in args.include_for_metrics:
        yield (
            "include_for_metrics has 'inputs', but the token ids of two batches differ in length "
            "and cannot be put together: leave it out."
        )
    if getattr(trainer, "compute_loss_func", None) is not None:
        yield (
            "compute_loss_func takes the place of the criterion's loss, which Trainer then no "
            "longer divides by gradient_accumulation_steps: leave it out."
        )
    if (better := _better(args)) is not None:
        yield better
    for field in fields(args):
        if field.name in _DEFAULT_ONLY and getattr(args, field.name) != field.default:
            yield _DEFAULT_ONLY[field.name]


def _better(args: TrainingArguments) -> str | None:
    """Why the worst checkpoint would be taken for the best one; ``None`` where it would not."""
    metric = args.metric_for_best_model or ""
    is_loss = metric.endswith("loss")
    if not (is_loss or _FIGURE.fullmatch(metric)):
        return None  # of the user's own
    greater = not is_loss and higher_is_better(metric)
    if args.greater_is_better is greater:
        return None
    return (
        f"metric_for_best_model is {metric!r}, of which {'higher' if greater else 'lower'} is "
        f"better: set greater_is_better={greater}."
    )


def _rests(model: Any) -> bool:
    """Whether a model has a matching head that trains and is not in every step."""
    criterion = model.criterion
    head = getattr(criterion.model, "head", None)
    if not (isinstance(head, nn.Module) and any(p.requires_grad for p in head.parameters())):
        return False
    always = getattr(criterion.config, "matches_always", True)
    return "loss_atm" not in criterion.measures or not always
