"""Thin adapters to other training stacks: fairseq2, transformers' ``Trainer``, LAION-CLAP.

A host may import everything of the package but another host and ``recipes``; only ``recipes``
import a host. Private names of the other stack are in one module a host: ``internals``, in fairseq2
``compat``. What every host has to do is in ``CONTRIBUTING.md``, "Add a host".
"""
