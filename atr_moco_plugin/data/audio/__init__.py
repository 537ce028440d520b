"""One audio file to a waveform: where its bytes are, decoding, resampling, cropping, caching.

Knows nothing of captions, splits or batches. May import ``errors``, ``io`` and ``sample_rate``.
"""
