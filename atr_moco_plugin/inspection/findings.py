"""What an inspection says of a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One remark on one clip.

    ``Finding("silence", "train", "rain.wav", "98 % of its 5.0 s are silent.", exclude=True)`` says
    that training had better do without the clip.

    Attributes:
        kind: such as ``silence``, ``clipping``, ``same audio`` or ``shared caption``.
        split: the split that the clip is in.
        key: of the clip.
        what: one sentence with figures.
        others: data set, split and key of each other clip that it has to do with, such as those
            with the same audio.
        exclude: whether the list of clips to leave out names it. Of a group of equal clips one
            stays.
    """

    kind: str
    split: str
    key: str
    what: str
    others: tuple[tuple[str, str, str], ...] = ()
    exclude: bool = False


def keys_to_exclude(findings: Iterable[Finding]) -> list[str]:
    """Keys of the clips to leave out, each once, in the order of the findings."""
    return list(dict.fromkeys(finding.key for finding in findings if finding.exclude))
