"""Audio and text encoders, and how they read weights of other projects.

Each encoder is a folder with its own configuration and returns token states with the mask of the
valid tokens. May import ``contracts``, ``tensors``, ``tokens`` and ``io``; never a head, a model, a
criterion or data.
"""
