"""Small helpers on torch tensors.

``float32`` keeps and computes in float32 where it matters, ``transfer`` copies to the device,
``compile`` keeps functions out of compiled graphs, ``internals`` has the private names of PyTorch.
Nothing here knows audio, text or retrieval. May not import anything of this package but ``errors``.
"""
