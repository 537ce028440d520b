"""Outputs of frozen towers on disk: what they hold, how they are written and read.

In reading order: ``outputs`` says what is kept of a clip or a caption, ``fingerprint`` what decides
about it, ``index`` which folder has what, ``shards`` how a file of them is written and read,
``store`` reads a folder. ``encode`` makes outputs, ``content`` those of a shard, ``audio_files``
tells whether files have changed, ``sizes`` how much it takes, ``build`` writes a folder with one
process or several. ``clips`` and ``captions`` say what a folder of each is to have, ``batch`` has
the batches, and ``towers`` puts it together for a host. A batch of outputs enters a tower at a
later stage; see :mod:`atr_moco_plugin.model.towers`. May not import a criterion, a host or an
encoder.
"""
