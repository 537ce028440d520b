"""What happens at an optimizer step: parameter groups, and the hook that criteria attach.

Imports torch and ``errors`` alone; criteria, safety and hosts build on it.
"""

from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.optim.step_hook import attach

__all__ = ["attach", "parameter_groups"]
