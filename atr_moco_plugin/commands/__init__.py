"""The command line: ``python -m atr_moco_plugin COMMAND`` and ``atr-moco COMMAND``.

One module a command, with ``SUMMARY``, ``EXAMPLE``, ``add_arguments`` and ``run``; ``main`` puts
them together. Arguments, printing and exit statuses belong here and nothing else. Heavy imports
stand in ``run``, so that ``--help`` is quick. Only ``export`` imports hosts.
"""
