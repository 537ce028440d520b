"""From a data set to the batches of ``Trainer``: items, waveforms, features, collator.

May import the package below ``hosts``.
"""
