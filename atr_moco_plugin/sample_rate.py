"""Sampling rates: what a model, a data set and a file may have."""

from __future__ import annotations

from atr_moco_plugin.errors import InputError

RATES = (1_000, 768_000)
"""Lowest and highest sampling rate accepted, in Hz: a header that says otherwise is damaged, and
resampling from 1 Hz would take 16,000 times the memory of the file."""


def check_sample_rate(sample_rate: object, owner: str) -> int:
    """Return a sampling rate that a model, a reader or a data set publishes, if it is one.

    Args:
        sample_rate: an integer in Hz; ``None`` where it publishes none.
        owner: whose it is, for the message.

    Raises:
        ValueError: if it is no integer within :data:`RATES`.
    """
    if type(sample_rate) is not int or not RATES[0] <= sample_rate <= RATES[1]:
        raise InputError(
            f"`sample_rate` of {owner} is {sample_rate!r}, expected a whole number of Hz from "
            f"{RATES[0]} to {RATES[1]}, such as 16000"
        )
    return sample_rate
