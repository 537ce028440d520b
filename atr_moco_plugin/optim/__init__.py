"""What happens at an optimizer step.

``step_hook`` runs a criterion's ``on_optimizer_step`` after it, ``step_watch`` warns of a loop that
does not, ``param_groups`` makes the parameter groups of an optimizer.

Here belongs what depends on an optimizer and on no loss. May not import a criterion, a queue or a
host: criteria, ``safety`` and hosts build on it.
"""

from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.optim.step_hook import attach

__all__ = ["attach", "parameter_groups"]
