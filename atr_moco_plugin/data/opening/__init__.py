"""Rows and audio files to clips: find the files, join the rows, find copies, count what is missing.

All data sets share this when they are opened. May import ``data.audio``, ``data.tables``,
``data.clips`` and ``data.dataset``; never a data set of ``data.sets``.
"""
