"""Outputs of frozen towers on disk: what they hold, how they are written and read.

A batch of them enters a tower at a later stage; see :mod:`atr_moco_plugin.model.towers`.
"""
