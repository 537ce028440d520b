"""What happens around steps and evaluations of ``Trainer``: callback, arguments, R@k, resuming.

May import ``model`` and ``data`` of this host.
"""
