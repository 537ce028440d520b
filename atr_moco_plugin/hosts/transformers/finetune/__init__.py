"""A whole fine-tuning by transformers' ``Trainer``: batches, checkpoints, files of the run.

What does not depend on the loop is in ``finetuning``, ``evaluation`` and ``report``: here is what
``Trainer`` has to be told. May import ``data``, ``model`` and ``trainer`` beside it; none of them
imports it.
"""
