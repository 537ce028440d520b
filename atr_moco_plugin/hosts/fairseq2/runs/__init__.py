"""The folder that a run leaves: its files, its checkpoints, and whether a command may use it.

Here belongs what reads or guards such a folder. It may import ``config.command_line`` and the
package below ``hosts``, never ``training`` or ``evaluation`` of this host.
"""
