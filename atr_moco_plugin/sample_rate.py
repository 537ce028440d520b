"""The range of sampling rates that models, data sets and files may have.

Audio encoders of this package and of plugins publish ``sample_rate``, and their data are read at
it: in the recipes of the fairseq2 host, and wherever a model is a
:class:`~atr_moco_plugin.model.RetrievalModel`. The transformers host reads at the rate of its
feature extractor, LAION-CLAP at its own 48 kHz.
"""

from __future__ import annotations

from atr_moco_plugin.errors import InputError

RATES = (1_000, 768_000)
"""Lowest and highest sampling rate accepted, in Hz: a header that says otherwise is damaged, and
resampling from 1 Hz would take 16,000 times the memory of the file."""


def check_sample_rate(sample_rate: object, owner: str) -> int:
    """Check the sampling rate that a model, a reader or a data set publishes, and return it.

    Args:
        sample_rate: an integer in Hz; ``None`` where none is published.
        owner: the object that publishes it, for the message.

    Raises:
        InputError: if it is no integer within :data:`RATES`.
    """
    if type(sample_rate) is not int or not RATES[0] <= sample_rate <= RATES[1]:
        raise InputError(
            f"`sample_rate` of {owner} is {sample_rate!r}, expected a whole number of Hz from "
            f"{RATES[0]} to {RATES[1]}, such as 16000"
        )
    return sample_rate
