"""Files on disk: checkpoints that are read without running code, paths, locks, standard output.

Nothing here knows what a model does with the files. May import ``errors`` alone.
"""
