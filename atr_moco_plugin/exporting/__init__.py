"""A bundle in the form of another library: sentence-transformers, ONNX, ``ClapModel``.

Here belongs what converts a retriever; what reads a training run is in its host. It may import
``retriever`` and what that may import, never a host.
"""
