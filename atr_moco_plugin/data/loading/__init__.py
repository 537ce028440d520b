"""From an open data set to training batches, and to the audio of an evaluation.

In reading order: ``plan`` orders the pairs of an epoch and deals them to batches, ``pair_dataset``
draws captions and reads a batch, ``batch`` pads it, ``loader`` delivers batches and keeps the place
for a resumed run. ``evaluation_audio`` reads a split once; ``readable`` and ``bad_clips`` deal with
clips that cannot be read. May not import one data set of ``data.sets``.
"""
