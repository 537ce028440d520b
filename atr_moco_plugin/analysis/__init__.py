"""The geometry of embeddings: spectra, axes that two modalities share, dimension, hubs.

Works on any matrix of embeddings. :func:`~atr_moco_plugin.analysis.report.analyse` calls all the
others: ``within`` for one set of embeddings, ``between`` for two; ``rows`` and ``pairs`` check what
is given; ``shared_axes``, ``angles``, ``similarity``, ``neighbours``, ``dimension``, ``sphere`` and
``retrieval`` are pure functions; ``tables``, ``figures`` and ``page`` show the record. The reading
of embedding files is here too. May not import a host, a retriever or a data set.
"""

from __future__ import annotations

from atr_moco_plugin.analysis.report import analyse

__all__ = ["analyse"]
