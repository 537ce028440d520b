"""A criterion around two towers as the module that ``Trainer`` trains and evaluates.

May import ``data`` beside it, not ``trainer``.
"""
