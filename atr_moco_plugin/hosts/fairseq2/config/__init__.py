"""The recipe configuration: its sections, their checks, and the command line that sets them.

May import the package below ``hosts``; never ``training`` or ``evaluation`` of this host.
"""
