"""The section ``trainer`` of a recipe: fairseq2's own, and gradient caching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq2.recipe.config import GradAccumulationConfig, MixedPrecisionConfig, TrainerSection
from fairseq2.utils.validation import Validatable, ValidationResult
from typing_extensions import override

from atr_moco_plugin.config import in_range
from atr_moco_plugin.hosts.fairseq2.config.checks import result_of
from atr_moco_plugin.hosts.fairseq2.config.sections import default


@dataclass(kw_only=True)
class GradCacheConfig(Validatable):
    """Gradient caching (Gao et al. 2021): a large batch in the memory of a small one."""

    chunk_size: int | None = None
    """Clips, and captions, that each process encodes at once; the loss and its gradient stay those
    of the whole batch, and the encoders run twice. None encodes the batch at once."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(in_range(self, "chunk_size", least=1))


@dataclass(kw_only=True)
class RetrievalTrainerSection(TrainerSection):
    """fairseq2's section ``trainer`` with gradient caching."""

    grad_cache: GradCacheConfig = default(GradCacheConfig)

    @override
    def validate(self) -> ValidationResult:
        return result_of(super().validate().errors, self._problems())

    def _problems(self) -> Iterator[str]:
        if self.grad_cache.chunk_size is not None and self.data_parallelism == "fsdp":
            yield (
                f"`trainer.grad_cache.chunk_size` is {self.grad_cache.chunk_size}, but "
                "`trainer.data_parallelism` is fsdp, which shards a part again before the next "
                "chunk needs it: set data_parallelism to ddp, or leave chunk_size out."
            )


def bf16(accumulate: int = 1) -> RetrievalTrainerSection:
    """Autocast to bfloat16 with float32 weights; loss, queues and averages stay in float32.

    Args:
        accumulate: batches whose gradients an optimizer step adds up.
    """
    return RetrievalTrainerSection(
        mixed_precision=MixedPrecisionConfig(mode="auto"),
        grad_accumulation=GradAccumulationConfig(num_batches=accumulate),
    )
