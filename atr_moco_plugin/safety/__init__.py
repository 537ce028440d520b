"""What watches a training run: that its numbers are finite and that its embeddings do not collapse.

Needs torch alone, in any loop.
"""

from atr_moco_plugin.safety.collapse import CollapseWatch
from atr_moco_plugin.safety.finite import FiniteGuard, NonFiniteError

__all__ = ["CollapseWatch", "FiniteGuard", "NonFiniteError"]
