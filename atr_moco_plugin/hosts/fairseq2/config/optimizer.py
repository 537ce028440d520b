"""The optimizer ``retrieval_adamw``: AdamW with this package's parameter groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.validation import Validatable, ValidationResult
from torch.optim import AdamW, Optimizer
from typing_extensions import override

from atr_moco_plugin.config import in_range
from atr_moco_plugin.finetuning.step_sections import wrong_betas
from atr_moco_plugin.hosts.fairseq2 import compat
from atr_moco_plugin.hosts.fairseq2.config.checks import result_of
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.optim.param_groups import parameter_groups

OPTIMIZER = "retrieval_adamw"
_RATES = ("lr", "audio_lr", "text_lr", "temperature_lr", "head_lr_scale")


@dataclass(kw_only=True)
class RetrievalAdamWConfig(Validatable):
    """AdamW; the temperature, biases, weights of norms and what the model's parts name in
    ``no_weight_decay()`` are not weight-decayed."""

    lr: float = 2e-5
    """Learning rate of everything without one of its own."""

    audio_lr: float | None = None
    """Learning rate of the audio encoder; None takes ``lr``."""

    text_lr: float | None = None
    """Learning rate of the text encoder, upper layers in an ALBEF head included; None takes
    ``lr``."""

    temperature_lr: float | None = None
    """Learning rate of the temperature; None takes ``lr``."""

    layer_decay: float = 1.0
    """Factor on the rate from each layer of an encoder to the one below; 1 is the same for all.
    Other values are refused where an encoder does not publish its ``layers``."""

    head_lr_scale: float = 1.0
    """Factor on ``lr`` for the matching head, without layers of the text encoder in it."""

    weight_decay: float = 0.05
    """Of weight matrices, embeddings and kernels."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging factors of the gradient and of its square."""

    eps: float = 1e-8
    """Added to the denominator."""

    impl: Literal["auto", "foreach", "fused"] = "auto"
    """Implementation, see :class:`torch.optim.AdamW`."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(
            in_range(self, *_RATES, above=0),
            in_range(self, "layer_decay", above=0, most=1),
            in_range(self, "weight_decay", "eps", least=0),
            wrong_betas(self.betas),
        )


def create_optimizer(resolver: DependencyResolver, config: RetrievalAdamWConfig) -> Optimizer:
    """Make the optimizer of the model that is trained."""
    model = compat.data_parallel_model(RecipeContext(resolver))
    rates = {name: getattr(config, name) for name in _RATES}
    defaults = _own_rates(compat.config_as(RecipeContext(resolver), object))
    with one_line_errors():
        groups = parameter_groups(
            # DDP's wrapper would put a prefix before every name.
            getattr(model, "module", model),
            config.weight_decay,
            layer_decay=config.layer_decay,
            preset=[name for name, rate in rates.items() if defaults.get(name) == rate],
            **rates,
        )
    for group in groups:
        log.info(
            "Optimizer parameter group: {:,} parameters, lr {:.3g}, weight decay {:.3g}",
            sum(p.numel() for p in group["params"]), group["lr"], group["weight_decay"],
        )  # fmt: skip
    options = {} if config.impl == "auto" else {config.impl: True}
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, **options)


def _own_rates(recipe: object) -> dict[str, float | None]:
    """The learning rates that a recipe has where its user sets none."""
    section = getattr(type(recipe)(), "optimizer", None)
    return {name: getattr(getattr(section, "config", None), name, None) for name in _RATES}
