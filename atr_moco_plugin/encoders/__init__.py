"""Audio and text encoders, and how they read weights of other projects.

Each encoder is a folder with its own configuration. It returns token states and the mask of the
valid tokens. ``sources`` finds files on this machine, ``weights`` fetches, verifies and loads files
of weights. May not import a head, a model, a criterion, data, or another encoder.
"""
