"""The ``criterion:`` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairseq2.recipe.config import SupportsStructure
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyResolver
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.config import structure
from atr_moco_plugin.criterion import Atc
from atr_moco_plugin.plugins import load


@dataclass(kw_only=True)
class CriterionSection(SupportsStructure):
    """A criterion by its entry-point name, with its options.

    A recipe declares ``criterion: CriterionSection | str`` and turns the shorthand
    ``criterion: NAME`` into a section in its own ``structure`` (see
    :class:`~atr_moco_plugin.hosts.fairseq2.config.RetrievalRecipeConfig`).
    """

    # No default: the shorthand replaces the whole mapping, and `--config criterion.config.k=v`
    # after it builds a mapping without a name; a default would silently change the criterion.
    name: str | None = None
    """Name in the group ``atr_moco_plugin.criteria``."""

    config: object = field(default_factory=dict)
    """Options of that criterion."""

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        if self.name is None:
            raise RecipeError(
                "`criterion.name` is missing; write `--config criterion.name=NAME "
                "criterion.config.KEY=VALUE` instead of the shorthand `criterion: NAME` when "
                "options are set as well."
            )
        try:
            self.config = self._structured()
        except ValueError as ex:
            raise RecipeError(str(ex)) from None

    def _structured(self) -> object:
        if not isinstance(self.config, dict):
            return self.config  # already an object of the criterion's own config class
        config_class = load("criteria", str(self.name)).config_class
        return structure(config_class, self.config, "criterion.config")

    def build(self, model: Module) -> Atc:
        """Wrap a model in the criterion.

        Raises:
            ValueError: for an unknown name or option, or one that does not fit the model.
        """
        return load("criteria", str(self.name))(model, self._structured())
