"""Captions files to rows: encodings, separators, JSON, and what the columns are called.

Knows nothing of audio or of any one data set. May import ``errors`` alone.
"""
