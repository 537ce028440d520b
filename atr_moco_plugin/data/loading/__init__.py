"""From an open data set to training batches: the order of pairs, workers, padding, resuming.

May import ``data.dataset`` and ``data.audio``; never one data set of ``data.sets``.
"""
