"""A criterion around two towers as the module that ``Trainer`` trains.

May import the package below ``hosts``.
"""
