"""Retrieval on the splits of a data set, with the model of a run or of one of its checkpoints.

Here belongs the one path from clips and captions to figures, which validation, the end of a run and
the evaluation recipe share. It may import ``config`` and ``runs``, never ``training``.
"""
