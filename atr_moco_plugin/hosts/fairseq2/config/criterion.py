"""The ``criterion:`` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from fairseq2.recipe.config import SupportsStructure
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyResolver
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.plugins import load_complete


@dataclass(kw_only=True)
class CriterionSection(SupportsStructure):
    """A criterion by its entry-point name, with its options.

    A recipe declares ``criterion: CriterionSection | str`` and turns the shorthand
    ``criterion: NAME`` into a section in its own ``structure`` (see
    :class:`~atr_moco_plugin.hosts.fairseq2.config.recipe.RetrievalRecipeConfig`).
    """

    # No default: the shorthand replaces the whole mapping, and `--config criterion.config.k=v`
    # after it builds a mapping without a name; a default would silently change the criterion.
    name: str | None = None
    """Name in the group ``atr_moco_plugin.criteria``."""

    config: object = field(default_factory=dict)
    """Options of that criterion."""

    def drop_options_of(self, default: CriterionSection) -> None:
        """Drop options that the recipe sets for its own criterion and this one does not know.

        fairseq2 merges the options of a recipe's default criterion with those that a user sets,
        also where the user names another criterion.
        """
        if self.name in (None, default.name) or not (
            isinstance(self.config, dict) and isinstance(default.config, dict)
        ):
            return
        try:
            known = {x.name for x in fields(self.kind.config_class)}
        except InputError:
            return  # `structure` says what is wrong with the name
        merged = default.config.items()
        self.config = {k: v for k, v in self.config.items() if k in known or (k, v) not in merged}

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        if self.name is None:
            raise RecipeError(
                "`criterion.name` is missing; write `--config criterion.name=NAME "
                "criterion.config.KEY=VALUE` instead of the shorthand `criterion: NAME` when "
                "options are set as well."
            )
        with one_line_errors():
            self.config = self._options()

    def _options(self) -> object:
        if not isinstance(self.config, dict):
            return self.config  # already an object of the criterion's own config class
        return build_config(self.kind.config_class, self.config, "criterion.config")

    @property
    def kind(self) -> Any:
        """The criterion's class.

        Raises:
            InputError: for an unknown name, and a class that lacks what a criterion has.
        """
        return load_complete("criteria", str(self.name))

    @property
    def matches(self) -> bool:
        """Whether the criterion trains the matching head."""
        return "loss_atm" in self.kind.measures

    @property
    def static_graph(self) -> bool:
        """Whether a gradient reaches every parameter in every step, so that DDP need not look for
        those that it leaves out: the head of a criterion without a matching loss, or in the steps
        of one before it begins."""
        return self.matches and getattr(self.config, "matches_always", True)

    def build(self, model: Module) -> Any:
        """Wrap a model in the criterion.

        Raises:
            InputError: for an unknown name or option, one that does not fit the model, or a
                criterion that lacks what one has.
        """
        criterion = self.kind(model, self._options())
        for name in ("model", "temperature"):
            if not hasattr(criterion, name):
                raise InputError(
                    f"The criterion {self.name!r} has no `{name}` once it is built; "
                    "docs/plugins.md says what a criterion offers."
                )
        return criterion
