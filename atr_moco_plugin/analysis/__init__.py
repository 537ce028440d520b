"""The geometry of embeddings: spectra, axes that two modalities share, dimension, hubs.

Works on any matrix of embeddings. ``report`` has :func:`analyse`, which calls all the others:
``within`` for one set of embeddings, ``between`` for two; ``rows`` and ``pairs`` check what is
given; ``shared_axes``, ``angles``, ``similarity``, ``neighbours``, ``dimension`` and ``sphere``
are pure functions. The reading of embedding files and the page are here too. May not
import a host, a retriever or a data set.
"""

from __future__ import annotations

from atr_moco_plugin.analysis.report import analyse

__all__ = ["analyse"]
