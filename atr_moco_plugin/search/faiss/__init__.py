"""An index in a folder that FAISS searches, for tens of millions of windows.

``ivf`` is the index of FAISS, ``record`` what the index in the folder says of it, ``store`` asks
both. Vectors and recordings stay where :mod:`atr_moco_plugin.search.local` keeps them: here belongs
only what makes searching them quicker. ``ivf`` and ``store`` need the extra ``faiss``.
"""
