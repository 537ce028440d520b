"""One file a data set: where its captions and audio lie, and the options to open it.

A new data set goes here and into ``registry.py``. May import everything in ``data`` but ``loading``.
"""
