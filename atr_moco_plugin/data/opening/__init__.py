"""Rows and audio files to clips: find the files, join the rows, find copies, count what is missing.

All data sets share this when they are opened. May not import ``data.sets`` or ``data.loading``.
"""
