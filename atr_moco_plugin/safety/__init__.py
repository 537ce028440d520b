"""What watches a training run, in any loop: that its numbers are finite, and that it learns.

``finite`` stops a run at a NaN, ``message`` words what it found, ``names`` and ``last_good`` name
the clips and the checkpoint in it; ``collapse`` warns of embeddings that lose their directions, of
equal similarities and of a matching head that learns nothing. Here belongs what looks at criteria,
queues and optimizers from outside; criteria never import it. May not import data, evaluation or a
host.
"""

from atr_moco_plugin.safety.collapse import CollapseWatch
from atr_moco_plugin.safety.finite import FiniteGuard, NonFiniteError

__all__ = ["CollapseWatch", "FiniteGuard", "NonFiniteError"]
