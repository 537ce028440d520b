"""From an open data set to training batches: the order of pairs, workers, padding, resuming.

``plan`` and ``pair_dataset`` decide and read a batch, ``loader`` delivers them one after another.
May import ``data.dataset`` and ``data.audio``; never one data set of ``data.sets``.
"""
