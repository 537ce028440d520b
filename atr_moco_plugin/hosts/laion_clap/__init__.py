"""LAION-CLAP as a host: its training loop, data and towers with this package's criterion.

``python -m atr_moco_plugin.hosts.laion_clap`` takes the arguments of ``laion_clap.training.main``
and the criterion's own; see ``docs/laion_clap.md``. What the host replaces inside LAION-CLAP is in
``internals``; it finds the parts of the model by their names in CLAP's checkpoints. May not import
another host.
"""
