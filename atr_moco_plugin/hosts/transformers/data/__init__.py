"""From a data set to the batches of ``Trainer``: waveforms, items, features, collator, loaders.

Imports nothing of ``model`` and ``trainer`` beside it.
"""
