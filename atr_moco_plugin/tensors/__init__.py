"""Small helpers on torch tensors: float32 where it matters, copies to the device, no compilation.

Nothing here knows audio, text or retrieval. Imports torch alone.
"""
