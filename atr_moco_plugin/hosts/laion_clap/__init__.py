"""LAION-CLAP as a host: its training loop, data and towers with this package's criterion.

``python -m atr_moco_plugin.hosts.laion_clap`` takes the arguments of ``laion_clap.training.main``
and the criterion's own; see ``docs/laion_clap.md``. Names inside LAION-CLAP that it reads or
replaces are in ``internals.py``. No other host is imported here.
"""
