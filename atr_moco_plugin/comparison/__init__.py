"""Are two models really different? Paired tests on the same queries, and a page of what changed.

Here belong the reading of runs, evaluations and TREC files, and the tests. May not import a host or
a recipe.
"""

from atr_moco_plugin.comparison.assemble import Comparison, Options, compare
from atr_moco_plugin.comparison.inference import Settings
from atr_moco_plugin.comparison.sides import Side, parse_sides

__all__ = ["Comparison", "Options", "Settings", "Side", "compare", "parse_sides"]
