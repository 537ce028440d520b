"""The texts of a data set, each once, with the clips that they are said of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.inspection.findings import Finding


class Owner(NamedTuple):
    """The clip of one caption.

    Attributes:
        split: that it is in.
        key: the clip's.
        group: its caption group, which shares captions on purpose; ``None`` where it has none.
        number: of the clip among those of all splits, from 0.
    """

    split: str
    key: str
    group: str | None
    number: int

    @property
    def clip(self) -> tuple[str, str]:
        """Split and key."""
        return self.split, self.key

    @property
    def holder(self) -> tuple[str, ...]:
        """Whose the caption is: the clip's, or the group's, whose clips share it on purpose."""
        return self.clip if self.group is None else (self.group,)


Texts = dict[str, list[Owner]]
"""Text, as it is written, to one owner for each caption of that text."""


class Seen(NamedTuple):
    """What one look at the captions found.

    Attributes:
        findings: one for each text, or group of texts.
        captions: how many captions of each split it is about.
    """

    findings: list[Finding]
    captions: Counter[str]


@dataclass(frozen=True)
class Remark:
    """What is said of a text: of its first clip, with the clips that have it too.

    Attributes:
        kind: see :class:`~atr_moco_plugin.inspection.findings.Finding`.
        what: one sentence.
        owners: of all captions that it is about.
        weight: the largest comes first.
    """

    kind: str
    what: str
    owners: Sequence[Owner]
    weight: float = 0.0


def texts_of(splits: Mapping[str, Sequence[Clip]]) -> Texts:
    """Collect the texts of all clips, in the order of their first captions."""
    texts: Texts = {}
    numbers = count()
    for split, clips in splits.items():
        for clip in clips:
            owner = Owner(split, clip.key, clip.caption_group, next(numbers))
            for text in clip.captions:
                texts.setdefault(text, []).append(owner)
    return texts


def clips_of(owners: Iterable[Owner]) -> list[tuple[str, str]]:
    """Split and key of each clip once, in the order of the data set."""
    ordered = sorted(owners, key=lambda owner: owner.number)
    return list(dict.fromkeys(owner.clip for owner in ordered))


def seen(name: str, remarks: Iterable[Remark]) -> Seen:
    """Findings of remarks, those of the largest weight first.

    Args:
        name: of the data set.
        remarks: in the order of their texts.
    """
    findings: list[Finding] = []
    captions: Counter[str] = Counter()
    for remark in sorted(remarks, key=lambda remark: -remark.weight):
        captions.update(owner.split for owner in remark.owners)
        (split, key), *others = clips_of(remark.owners)
        pairs = tuple((name, *clip) for clip in others)
        findings.append(Finding(remark.kind, split, key, remark.what, pairs))
    return Seen(findings, captions)


def quoted(text: str, most: int = 120) -> str:
    """A text in quotation marks on one line, cut where it is long."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= most else line[: most - 1].rstrip() + '…'}”"


def by_split(clips: Iterable[tuple[str, str]]) -> str:
    """Numbers of clips in words: ``3 clips`` of one split, ``3 clips (2 train, 1 test)`` of two."""
    counts = Counter(split for split, _ in clips)
    total = sum(counts.values())
    text = f"{total:,} clip{'s' * (total != 1)}"
    if len(counts) < 2:
        return text
    return f"{text} ({', '.join(f'{number:,} {split}' for split, number in counts.items())})"
