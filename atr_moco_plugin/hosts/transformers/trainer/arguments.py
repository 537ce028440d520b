"""What of ``Trainer`` and ``TrainingArguments`` does not go with these models."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import Trainer, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.trainer.metrics import TRAINING_ARGUMENTS

_LABEL_SMOOTHING = (
    "label_smoothing_factor smooths the labels of a classifier, which this loss has not: leave it "
    "out, the criterion's `alpha` softens its targets."
)
_NEFTUNE = (
    "neftune_noise_alpha adds noise to the one token embedding of a language model, which a model "
    "of two towers has not: leave it out."
)
_ASKED_FOR = {
    "config": f"A TrainerModel has no `config`; where Trainer asks for it: {_LABEL_SMOOTHING}",
    "get_input_embeddings": _NEFTUNE,
    # Of a checkpoint that lacks some of the model's weights.
    "_keys_to_ignore_on_save": (
        "The checkpoint lacks weights of this model, so it is of another criterion, head or "
        "encoder: make the model as for the run that saved it, or begin a new training."
    ),
}


class NotOfferedError(InputError, AttributeError):
    """An argument makes ``Trainer`` ask for an attribute that a model of two towers has not; it is
    an AttributeError too, so that ``hasattr`` says no."""


def why_not_offered(attribute: str) -> str | None:
    """Why a model has not got an attribute that ``Trainer`` asks for, before a callback could say
    so; None for other attributes.

    Args:
        attribute: a name that was not found.
    """
    return _ASKED_FOR.get(attribute)


def check_trainer(trainer: Trainer) -> None:
    """Refuse what would be ignored, would give wrong figures, or would fail later.

    Raises:
        ValueError: one sentence on the first thing that is found.
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
    if args.world_size > 1 and not args.accelerator_config.even_batches:
        yield (
            "accelerator_config.even_batches is off, so that ranks would have different numbers "
            "of batches, and one would wait for the others forever: leave it on."
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
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
    if args.neftune_noise_alpha is not None:
        yield _NEFTUNE
    if args.label_smoothing_factor:
        yield _LABEL_SMOOTHING
    if "inputs" in args.include_for_metrics:
        yield (
            "include_for_metrics has 'inputs', but the token ids of two batches differ in length "
            "and cannot be put together: leave it out."
        )
    # Options that some versions have not.
    if getattr(args, "past_index", -1) >= 0:
        yield "past_index asks for an output that a model of two towers has not: leave it out."
    if getattr(args, "jit_mode_eval", False):
        yield "jit_mode_eval cannot trace a model whose batch has ids in it: leave it out."
    for name in ("fp16_full_eval", "bf16_full_eval"):
        if getattr(args, name, False):
            yield (
                f"{name}=True turns the weights of the model that trains, and its momentum copies, "
                f"to half precision for good: leave it out; `{name.removesuffix('_full_eval')}` "
                "computes in half precision."
            )
