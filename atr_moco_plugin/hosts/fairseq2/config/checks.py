"""Keys of fairseq2's own sections that this package's models cannot honour.

Each would be ignored, or would train something else than it says, so it is refused before data is
opened. ``docs/fairseq2.md`` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from fairseq2.models.transformer import SDPA
from fairseq2.recipe.config import CommonSection, GangSection, TrainerSection
from fairseq2.recipe.error import RecipeError
from fairseq2.utils.validation import ValidationResult
from torch.nn import Module

from atr_moco_plugin.model import RetrievalModel

TORCH_ATTENTION = ("torch", "torch_math", "torch_mem_efficient", "torch_flash")
"""Values of ``common.torch.default_sdpa`` that set what PyTorch's own attention, which the encoders
of this package call, runs on."""


def result_of(*checks: Iterable[str]) -> ValidationResult:
    """Gather the problems that checks found, in fairseq2's form."""
    result = ValidationResult()
    for check in checks:
        for problem in check:
            result.add_error(problem)
    return result


def unsupported(gang: GangSection, trainer: TrainerSection | None = None) -> Iterator[str]:
    """One sentence for each key of fairseq2 that cannot be honoured.

    Args:
        gang: the section ``gang``.
        trainer: the section ``trainer``, where the recipe has one.
    """
    if gang.tensor_parallel_size != 1:
        yield (
            f"`gang.tensor_parallel_size` is {gang.tensor_parallel_size}, but must be 1: the "
            "encoders have no tensor parallelism, and processes would read the same clips twice."
        )
    if trainer is None:
        return
    if trainer.fsdp.version != "v2":
        yield (
            f"`trainer.fsdp.version` is {trainer.fsdp.version}, but must be v2: momentum copies "
            "are sharded by parameter, which only FSDP2 does."
        )
    if trainer.data_parallelism == "fsdp" and trainer.mixed_precision.mode == "static":
        yield (
            "`trainer.mixed_precision.mode` is static, but must be auto or off under fsdp: it "
            "rounds the temperature, and what else of the criterion stays float32, to "
            f"{trainer.mixed_precision.dtype} in every pass."
        )
    if trainer.fsdp.granularity == "model":
        yield (
            "`trainer.fsdp.granularity` is model, but must be layer or stack: one unit of "
            "everything would be whole on each process in every step; "
            "`trainer.data_parallelism=ddp` does that with less traffic."
        )


def sharded_cache(dataset: Any, trainer: TrainerSection) -> Iterator[str]:
    """One sentence where frozen encoders are sharded whose outputs are to be cached.

    Args:
        dataset: the section ``dataset``.
        trainer: the section ``trainer``.
    """
    if dataset.cache_embeddings is not None and trainer.data_parallelism == "fsdp":
        yield (
            "`trainer.data_parallelism` is fsdp, but `dataset.cache_embeddings` encodes clips on "
            "each process by itself: set it to ddp, since what is left to train is small."
        )


def check_attention(model: Module, common: CommonSection) -> None:
    """Refuse an attention of fairseq2's that no module of the model is made of.

    Raises:
        RecipeError: naming the key.
    """
    variant = common.torch.default_sdpa
    if variant not in TORCH_ATTENTION and not any(isinstance(x, SDPA) for x in model.modules()):
        raise RecipeError(
            f"`common.torch.default_sdpa` is {variant}, but the encoders of this run call "
            f"PyTorch's attention and would ignore it; set one of {', '.join(TORCH_ATTENTION)}."
        )


def check_clip_length(model: RetrievalModel, **seconds: float) -> None:
    """Refuse clips that are longer than the audio encoder takes.

    Args:
        model: the model; its encoder may publish ``max_seconds``.
        seconds: longest clip by section, such as ``dataset=10.0``.

    Raises:
        RecipeError: naming the key.
    """
    longest = getattr(model.audio.encoder, "max_seconds", None)
    for section, value in seconds.items():
        if longest is not None and value > longest:
            raise RecipeError(
                f"`{section}.max_seconds` is {value:g}, but the audio encoder takes clips of "
                f"{longest:g} s at most: set it to {math.floor(longest * 100) / 100:g} or less."
            )
