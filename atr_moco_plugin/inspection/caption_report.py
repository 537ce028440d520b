"""All looks at the captions of a data set in one: figures by split, findings, what was not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.inspection.captions import (
    count_shared,
    find_near,
    find_odd,
    find_repeated,
    find_shared,
    words_a_caption,
)
from atr_moco_plugin.inspection.findings import Finding
from atr_moco_plugin.inspection.languages import find_languages
from atr_moco_plugin.inspection.texts import Seen, Texts, texts_of
from atr_moco_plugin.inspection.tokens import Tokens, find_tokens

_UNKNOWN_WORDS = 50


@dataclass(frozen=True)
class CaptionReport:
    """What the captions of a data set are like.

    Attributes:
        figures: split to its figures, ready for JSON: ``captions``, distinct ``texts``,
            ``of_groups`` (captions of groups, shared on purpose), ``shared_to_the_letter`` and
            ``shared_in_the_split`` (by another clip of the split), ``words`` (least, median, most),
            ``languages`` (``None`` if not told) and ``found``, the captions of each kind of
            finding.
        findings: of all kinds, one for each text or group of texts.
        words: ``[captions]`` int64, words of each caption.
        tokens: what the tokenizer makes of them, if there is one.
        notes: what was not looked at, and why.
    """

    figures: dict[str, dict[str, Any]]
    findings: list[Finding]
    words: NDArray[np.int64]
    tokens: Tokens | None
    notes: tuple[str, ...]

    @property
    def unknown_words(self) -> dict[str, int]:
        """The most frequent unknown words, to the captions that have them."""
        words = {} if self.tokens is None else self.tokens.unknown_words.most_common(_UNKNOWN_WORDS)
        return dict(words)


def inspect_captions(
    name: str,
    splits: Mapping[str, Sequence[Clip]],
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_tokens: int = 64,
) -> CaptionReport:
    """Look at every caption: shared, nearly shared, repeated and odd texts, languages and tokens.

    Args:
        name: of the data set.
        splits: its clips by split.
        tokenizer: the model's; without one, no tokens are counted.
        max_tokens: that the model reads, special ones included.

    Raises:
        InputError: see :func:`~atr_moco_plugin.inspection.tokens.find_tokens`.
    """
    texts = texts_of(splits)
    notes: list[str] = []
    found = {
        "shared caption": find_shared(name, texts),
        "near caption": find_near(name, texts),
        "repeated caption": find_repeated(name, texts),
        **find_odd(name, texts),
    }
    languages: dict[str, Counter[str]] = {}
    try:
        languages, found["other language"] = find_languages(name, texts)
    except InputError as ex:
        notes.append(str(ex))
    tokens = None
    if tokenizer is None:
        notes.append("No tokens were counted: no tokenizer was given.")
    else:
        tokens = find_tokens(name, texts, tokenizer, max_tokens)
        found |= {"unknown token": tokens.unknown, "cut caption": tokens.cut}
        if not tokens.has_unknown:
            notes.append("The tokenizer has no unknown token: it spells every text in bytes.")
    figures = _figures(splits, texts, found, languages)
    findings = [finding for look in found.values() for finding in look.findings]
    return CaptionReport(figures, findings, words_a_caption(texts), tokens, tuple(notes))


def _figures(
    splits: Mapping[str, Sequence[Clip]],
    texts: Texts,
    found: Mapping[str, Seen],
    languages: Mapping[str, Counter[str]],
) -> dict[str, dict[str, Any]]:
    letter, shared = count_shared(texts, str), count_shared(texts)
    figures: dict[str, dict[str, Any]] = {}
    for split in splits:
        own = {
            text: mine
            for text, owners in texts.items()
            if (mine := [owner for owner in owners if owner.split == split])
        }
        words = words_a_caption(own)
        figures[split] = {
            "captions": len(words),
            "texts": len(own),
            "of_groups": sum(x.group is not None for owners in own.values() for x in owners),
            "shared_to_the_letter": letter[split],
            "shared_in_the_split": shared[split],
            "words": _least_median_most(words),
            "languages": dict(languages[split].most_common()) if split in languages else None,
            "found": {kind: look.captions[split] for kind, look in found.items()},
        }
    return figures


def _least_median_most(words: NDArray[np.int64]) -> list[float] | None:
    return [int(words.min()), float(np.median(words)), int(words.max())] if len(words) else None
