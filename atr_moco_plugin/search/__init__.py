"""An index of recordings: what is in it, how it is filled, and how it is asked.

``store`` has the interface of an index, other files keep one on disk or in a database. Here belongs
neither a model (an index takes embeddings from a retriever) nor printing: commands do that.
"""
