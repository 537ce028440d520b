"""The training recipe: model, batches, steps, and what is done when a run stops.

May import ``config`` and ``runs``.
"""
