"""``Trainer`` itself: the callback around its steps, its options, its checkpoints and R@k.

May import ``data`` and ``model`` beside it; neither imports this folder.
"""
