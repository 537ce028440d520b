"""One file a data set: where its captions and audio lie, and the options to open it.

A new data set gets a file here and a line in ``registry``. May not import ``data.loading``; data
sets share code through ``data.opening``.
"""
