"""What a tokenizer makes of captions: tokens that it does not know, and texts that are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.inspection.texts import Remark, Seen, Texts, quoted, seen

_TEXTS_A_CALL = 4_096
_WORDS_SHOWN = 5


@dataclass(frozen=True)
class Tokens:
    """What a tokenizer makes of the captions of a data set.

    Attributes:
        lengths: ``[captions]`` int64, tokens of each caption, special ones included.
        unknown: captions with a token that the tokenizer does not know.
        cut: captions that are longer than the model reads.
        unknown_words: words, or parts of them, that became the unknown token, to the captions that
            have them. Empty for a tokenizer that does not say where a token is from.
        has_unknown: whether the tokenizer has an unknown token at all; those of bytes have none.
    """

    lengths: NDArray[np.int64]
    unknown: Seen
    cut: Seen
    unknown_words: Counter[str]
    has_unknown: bool


@dataclass(frozen=True)
class _Text:
    length: int
    unknown: tuple[str, ...]
    number_unknown: int


def find_tokens(
    name: str, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Tokens:
    """Tokenize every text once.

    Args:
        name: of the data set.
        texts: of all its splits.
        tokenizer: the model's.
        max_tokens: tokens that the model reads, special ones included; longer captions are cut.

    Raises:
        InputError: if ``max_tokens`` has no room for a word beside the special tokens.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise InputError(
            f"max_tokens is {max_tokens}, but {special} of them are special tokens of the "
            f"tokenizer: give at least {special + 1}."
        )
    unknown: list[Remark] = []
    cut: list[Remark] = []
    words: Counter[str] = Counter()
    lengths: list[int] = []
    for (text, owners), of_text in zip(
        texts.items(), _tokenized(list(texts), tokenizer), strict=True
    ):
        lengths += [of_text.length] * len(owners)
        if number := of_text.number_unknown:
            distinct = dict.fromkeys(of_text.unknown)
            words.update(dict.fromkeys(distinct, len(owners)))
            named = ", ".join(quoted(word, 30) for word in list(distinct)[:_WORDS_SHOWN])
            what = (
                f"{quoted(text)} has {number} unknown token{'s' * (number > 1)}"
                f"{named and f': {named}'}{', …' * (len(distinct) > _WORDS_SHOWN)}."
            )
            unknown.append(Remark("unknown token", what, owners, number))
        if of_text.length > max_tokens:
            what = (
                f"{quoted(text)} has {of_text.length} tokens, of which the last "
                f"{of_text.length - max_tokens} are cut at {max_tokens}."
            )
            cut.append(Remark("cut caption", what, owners, of_text.length))
    return Tokens(
        np.array(lengths, dtype=np.int64),
        seen(name, unknown),
        seen(name, cut),
        words,
        tokenizer.unk_token_id is not None and _may_be_unknown(tokenizer),
    )


def _may_be_unknown(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether some character is unknown. GPT-2 names an unknown token and never gives it."""
    ids = tokenizer("\U000e0fff\u16a0\U00013000", add_special_tokens=False)["input_ids"]
    return tokenizer.unk_token_id in ids


def _tokenized(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[_Text]:
    for start in range(0, len(texts), _TEXTS_A_CALL):
        part = texts[start : start + _TEXTS_A_CALL]
        unknown_id = tokenizer.unk_token_id
        if not tokenizer.is_fast:
            for ids in tokenizer(part, verbose=False)["input_ids"]:
                yield _Text(len(ids), (), ids.count(unknown_id))
            continue
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        for text, encoding in zip(part, backend.encode_batch(part), strict=True):
            places = [at for at, item in enumerate(encoding.ids) if item == unknown_id]
            spans = (encoding.offsets[at] for at in places)
            yield _Text(
                len(encoding.ids), tuple(text[first:last] for first, last in spans), len(places)
            )
