"""Captions files to rows: encodings, separators, JSON, and what columns and files are called.

Nothing here knows audio or one data set. May import ``errors`` alone.
"""
