"""The training recipe: the criterion as fairseq2 trains it, its batches, its steps and its end.

Here belongs what happens between the first step and the last file of a run. It may import
``config``, ``runs`` and ``evaluation``; only ``cli`` and ``setup`` import it.
"""
