"""The configuration of the recipes: their sections and checks, and the command line that sets them.

Here belongs what a user can set, and what refuses a wrong value before data is opened. It may
import ``runs`` and the package below ``hosts``, never ``training`` or ``evaluation`` of this host.
"""
