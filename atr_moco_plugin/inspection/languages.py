"""The languages that captions are in."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import NamedTuple

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_words
from atr_moco_plugin.inspection.texts import Remark, Seen, Texts, quoted, seen

_COMMON_SHARE = 0.1
_MARGIN = 2.5


class Languages(NamedTuple):
    """The languages of a data set's captions.

    Attributes:
        captions: split to language (ISO 639 code) to its captions.
        others: texts in other languages than the common ones.
    """

    captions: dict[str, Counter[str]]
    others: Seen


def find_languages(name: str, texts: Texts) -> Languages:
    """Tell the language of each text, and find those in other languages than most.

    A caption is short, and alone often looks like another language: to py3langid, *A goat bleats
    nearby* is Frisian. So a text is of the language in which all together are likeliest, unless
    another one is clearly likelier: by 2.5 in log-likelihood a square root of the text's bytes, the
    scale that py3langid itself takes for confidence. Of the 86,833 captions of AudioCaps and
    Clotho, which are English, four are above it. A language that a tenth of the captions are
    clearly of is common as well.

    Args:
        name: of the data set.
        texts: of all its splits.

    Raises:
        InputError: if py3langid is not installed.
    """
    try:
        import py3langid
    except ImportError as ex:
        raise InputError(
            "The languages of captions are told by py3langid, which is not installed: pip install "
            "'atr-moco-plugin[inspect]'."
        ) from ex
    first: dict[str, str] = {}
    together: dict[str, float] = defaultdict(float)
    for text in filter(has_words, texts):
        ranked = py3langid.rank(text)
        first[text] = ranked[0][0]
        weight = len(texts[text]) / _size(text)
        for language, score in ranked:
            together[language] += weight * score
    main = {max(together, key=together.__getitem__)} if together else set()
    clear = {
        text: language if language in main else _language(text, py3langid.rank(text), main)
        for text, language in first.items()
    }
    numbers: Counter[str] = Counter()
    for text, language in clear.items():
        numbers[language] += len(texts[text])
    common = main | {
        x for x, number in numbers.items() if number >= _COMMON_SHARE * numbers.total()
    }

    captions: dict[str, Counter[str]] = {}
    remarks: list[Remark] = []
    for text, language in clear.items():
        if language not in common and len(common) > 1:
            language = _language(text, py3langid.rank(text), common)
        for owner in texts[text]:
            captions.setdefault(owner.split, Counter())[language] += 1
        if language not in common:
            what = f"{quoted(text)} looks like another language, “{language}” to py3langid."
            remarks.append(Remark("other language", what, texts[text]))
    return Languages(captions, seen(name, remarks))


def _language(text: str, ranked: list[tuple[str, float]], common: set[str]) -> str:
    language, score = ranked[0]
    likely, best = next(pair for pair in ranked if pair[0] in common)
    return language if score - best > _MARGIN * _size(text) else likely


def _size(text: str) -> float:
    return math.sqrt(len(text.encode("utf-8", "surrogatepass")))
