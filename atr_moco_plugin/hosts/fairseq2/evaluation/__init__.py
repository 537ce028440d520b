"""The evaluation recipe: a checkpoint of a run on a split of a data set.

May import ``config`` and ``runs``.
"""
