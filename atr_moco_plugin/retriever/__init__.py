"""A trained model to use: ``AudioTextRetriever``, and the bundle that holds one.

Here belongs what turns any audio and any sentence into embeddings and scores. It may import the
model, its parts, ``text`` and ``data``; never an index, a command or a host.
"""
