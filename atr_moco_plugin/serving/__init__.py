"""The page that searches an index in a browser, on the loopback address.

Here belong the routes, the templates and what guards them. It imports ``search`` and ``retriever``,
never a command or a host. It needs the extra ``serve``.
"""
