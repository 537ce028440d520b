"""One audio file to a waveform: where its bytes are, decoding, resampling, cropping, caching,
augmentation.

Here belongs what needs one file alone. May not import anything else of ``data``: captions, splits
and batches are not known here.
"""
