"""An index in a folder: SQLite for what is in it, a file of float16 vectors beside it.

``index.sqlite`` has the recordings, ``vectors-N.f16`` a row for each window. Exact search over
the mapped file; nothing to start. Here belongs neither a model nor another engine, and nothing here
asks what a vector means.
"""

from atr_moco_plugin.search.local.opening import create_local, open_local

__all__ = ["create_local", "open_local"]
