"""Files on disk: checkpoints read without running code, paths, locks, lines on standard output.

Nothing here knows what the files mean to a model. May import ``errors`` alone.
"""
