"""Rows and audio files to clips: find the files, join the rows, tell copies, count what is missing.

What all data sets share when they are opened. May import ``data.audio`` and ``data.tables``; never one
data set of ``data.sets``.
"""
