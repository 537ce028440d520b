"""What is wrong, or double, in the texts of captions: whoever says them, in whatever words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import listed
from atr_moco_plugin.ids import normalize_caption
from atr_moco_plugin.inspection.texts import (
    Owner,
    Remark,
    Seen,
    Texts,
    by_split,
    clips_of,
    quoted,
    seen,
)

_LONG_WORDS, _LONG_TIMES = 40, 4
_SHOWN = 3

# Words that say nothing in English, and words that say in which order things happen.
_EMPTY = frozenset(("a", "an", "the", "some", "is", "are", "was", "were", "being"))
_ORDER = frozenset(("then", "before", "after", "followed", "follows", "following", "until"))

_MARKUP = re.compile(r"&(?:#\d+|#x[0-9a-f]+|[a-z]{2,8});|</?[a-z][^>]*>|https?://", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")


def find_shared(name: str, texts: Texts) -> Seen:
    """Texts that several clips have: a false negative for any loss that does not know of it.

    Texts are compared as :func:`~atr_moco_plugin.ids.normalize_caption` leaves them. Clips of one
    group, such as a class of ESC-50, share theirs on purpose and count as one.

    Args:
        name: of the data set.
        texts: of all its splits.
    """
    return seen(name, _shared(texts))


def _shared(texts: Texts) -> Iterator[Remark]:
    for normal, group in _by_form(texts, normalize_caption).items():
        owners = list(chain.from_iterable(group.values()))
        if len(_holders(owners)) > 1:
            clips = clips_of(owners)
            text = next(iter(group)) if len(group) == 1 else normal
            what = f"{quoted(text)} is said of {by_split(clips)}."
            yield Remark("shared caption", what, owners, len(clips))


def count_shared(texts: Texts, form: Callable[[str], str] = normalize_caption) -> Counter[str]:
    """Captions of each split that another clip of the same split has too.

    Args:
        texts: of all splits.
        form: two texts of one form are the same; ``str`` compares them to the letter.
    """
    shared: Counter[str] = Counter()
    for group in _by_form(texts, form).values():
        of_split: dict[str, list[Owner]] = defaultdict(list)
        for owner in chain.from_iterable(group.values()):
            of_split[owner.split].append(owner)
        for split, owners in of_split.items():
            shared[split] += len(owners) * (len(_holders(owners)) > 1)
    return shared


def find_near(name: str, texts: Texts) -> Seen:
    """Texts of several clips that are the same but for articles, endings and the order of words.

    ``A dog is barking as birds sing`` and ``Birds sing as a dog barks`` are one form to it, see
    :func:`near_form`. Texts that are the same once normalised are :func:`find_shared`'s.

    Args:
        name: of the data set.
        texts: of all its splits.
    """
    return seen(name, _near(texts))


def _near(texts: Texts) -> Iterator[Remark]:
    for group in _by_form(texts, near_form).values():
        wordings: dict[str, list[Owner]] = defaultdict(list)
        first: dict[str, str] = {}
        for text, owners in group.items():
            normal = normalize_caption(text)
            first.setdefault(normal, text)
            wordings[normal] += owners
        if len(wordings) < 2:
            continue
        # Of a clip's own wordings of one sentence none counts, unless another clip has one too.
        said: Counter[tuple[str, ...]] = Counter()
        for own in wordings.values():
            said.update(_holders(own))
        kept: list[Owner] = []
        for own in wordings.values():
            mine = _holders(own)
            others = {holder for holder, times in said.items() if times > (holder in mine)}
            kept += [owner for owner in own if others - {owner.holder}]
        if kept:
            clips = clips_of(kept)
            shown = listed([quoted(text) for text in first.values()], _SHOWN)
            what = f"{shown} are nearly one text, of {by_split(clips)}."
            yield Remark("near caption", what, kept, len(clips))


def near_form(text: str) -> str:
    """The form under which two texts are nearly one.

    Articles and forms of *be* go, English endings (*-s*, *-ing*, *-ed*, *-e*) go, and words are
    sorted, unless one of them says an order (*then*, *followed*, *before*, *after*, *until*). A
    text of another language keeps its words and loses their order alone.
    """
    words = normalize_caption(text).split()
    kept = [_stem(word) for word in words if word not in _EMPTY] or words
    return " ".join(kept if _ORDER.intersection(words) else sorted(kept))


def _stem(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    # running, runs
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def find_repeated(name: str, texts: Texts) -> Seen:
    """Texts that one clip has more than once, as AudioCaps has where two people wrote the same.

    Args:
        name: of the data set.
        texts: of all its splits.
    """
    return seen(name, _repeated(texts))


def _repeated(texts: Texts) -> Iterator[Remark]:
    for group in _by_form(texts, normalize_caption).values():
        of_clip: dict[tuple[str, str], list[Owner]] = defaultdict(list)
        for owner in chain.from_iterable(group.values()):
            of_clip[owner.clip].append(owner)
        for owners in of_clip.values():
            if len(owners) > 1:
                text = quoted(next(iter(group)))
                what = f"{text} is {len(owners)} captions of this clip."
                yield Remark("repeated caption", what, owners, len(owners))


def find_odd(name: str, texts: Texts) -> dict[str, Seen]:
    """Texts of one word, very long ones, and those that a wrong encoding or a web page left marks
    in.

    Args:
        name: of the data set.
        texts: of all its splits.

    Returns:
        What was found, by its kind. Kinds are ``one word``, ``long caption`` (more than 40 words
        and four times as many as the median), ``damaged text``, ``markup``.
    """
    counts = words_a_caption(texts)
    median = float(np.median(counts)) if len(counts) else 0.0
    remarks: dict[str, list[Remark]] = {
        kind: [] for kind in ("one word", "long caption", "damaged text", "markup")
    }
    for text, owners in texts.items():
        number = len(normalize_caption(text).split())
        for kind, what, weight in _odd(text, number, median):
            # A class is often one word, and means it.
            if kind != "one word" or any(owner.group is None for owner in owners):
                remarks[kind].append(Remark(kind, f"{quoted(text)} {what}.", owners, weight))
    return {kind: seen(name, found) for kind, found in remarks.items()}


def _odd(text: str, words: int, median: float) -> Iterator[tuple[str, str, float]]:
    if words == 1 and text.isascii():  # Chinese and Japanese put no blanks between words
        yield "one word", "is a single word", 0.0
    if words > max(_LONG_WORDS, _LONG_TIMES * median):
        yield "long caption", f"has {words} words, the median {median:g}", words
    if (mended := _mended(text)) is not None:
        yield "damaged text", f"was read in a wrong encoding and means {quoted(mended)}", 0.0
    elif found := _CONTROL.search(text):
        yield "damaged text", f"holds {found[0]!a}, which no text means", 0.0
    if found := _MARKUP.search(text):
        yield "markup", f"holds {quoted(found[0], 30)} of a web page", 0.0


def _mended(text: str) -> str | None:
    """UTF-8 that was read as Windows' Latin letters, as it was meant; ``None`` for other texts."""
    if text.isascii():
        return None
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None


def words_a_caption(texts: Texts) -> NDArray[np.int64]:
    """``[captions]`` int64, the words of each caption, told apart by blanks."""
    pairs = [(len(normalize_caption(text).split()), len(own)) for text, own in texts.items()]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return np.repeat(table[:, 0], table[:, 1])


def _by_form(texts: Texts, form: Callable[[str], str]) -> dict[str, Texts]:
    groups: dict[str, Texts] = defaultdict(dict)
    for text, owners in texts.items():
        groups[form(text)][text] = owners
    return groups


def _holders(owners: Iterable[Owner]) -> set[tuple[str, ...]]:
    return {owner.holder for owner in owners}
