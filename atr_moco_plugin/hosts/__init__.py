"""Thin adapters to other training stacks: fairseq2, transformers' ``Trainer``, LAION-CLAP.

A host may import everything of the package but another host and ``recipes``; only ``recipes``
import a host. Undocumented names of the other stack are in one module a host: ``internals.py``, in
fairseq2 ``compat.py``.
"""
