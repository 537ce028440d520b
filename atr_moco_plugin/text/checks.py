"""What a tokenizer must fit before training starts: the text encoder, and the captions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.encoders.positions import first_position
from atr_moco_plugin.errors import InputError, counted, listed
from atr_moco_plugin.text.tokenizer import blank_ids

_CAPTIONS_A_CALL = 4_096
_WARN_ABOVE, _REFUSE_ABOVE = 0.01, 0.5


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    encoder: nn.Module,
    max_tokens: int,
    *,
    tokens_key: str = "max_tokens",
    vocabulary_key: str = "vocab_size",
) -> None:
    """Refuse a tokenizer with ids that the encoder has no embeddings for, and captions longer than
    its positions.

    Both are read from ``encoder.config``, as models of transformers have it, and not checked where
    they are not there. RoBERTa and CLAP count positions from behind ``pad_token_id``.

    Args:
        tokenizer: what makes the ids.
        encoder: the text encoder.
        max_tokens: tokens of the longest caption, special ones included.
        tokens_key: the option of ``max_tokens``, for the message.
        vocabulary_key: the option of the encoder's vocabulary, for the message.

    Raises:
        InputError: naming both numbers and the key to change.
    """
    config = getattr(encoder, "config", None)
    vocab_size = getattr(config, "vocab_size", None)
    ids = max(tokenizer.get_vocab().values()) + 1
    if vocab_size is not None and ids > vocab_size:
        raise InputError(
            f"The tokenizer has {ids} tokens, but the text encoder has embeddings for "
            f"{vocab_size}; set `{vocabulary_key}={ids}`, or take the tokenizer of the encoder's "
            "own weights."
        )
    positions = text_positions(encoder)
    if positions is not None and max_tokens > positions:
        raise InputError(
            f"`{tokens_key}` is {max_tokens}, but the text encoder has positions for "
            f"{positions} tokens; set it to {positions} or less."
        )


def text_positions(encoder: nn.Module) -> int | None:
    """Tokens of the longest text that an encoder takes, special ones included; None where its
    ``config`` does not say, or says a number below 1, as XLNet's does, which has no limit."""
    positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
    return None if positions is None or positions < 1 else positions - first_position(encoder)


@dataclass
class _Found:
    captions: int = 0
    unknown: int = 0
    cut: int = 0
    example: str = ""


def check_captions(
    tokenizer: PreTrainedTokenizerBase,
    dataset: AudioTextDataset,
    splits: Sequence[str],
    max_tokens: int,
    *,
    allow_unknown: bool = False,
    option: str = "tokenizer.allow_unknown",
    tokens_option: str = "max_tokens",
    trained: bool = False,
    own: bool = False,
) -> list[str]:
    """Check the tokens of every caption, once and before training.

    A caption without a token would stop the run when it is drawn, so it is dropped from the data
    set, with a warning that counts them. Captions of nothing but ``[UNK]`` all look the same to the
    model: up to one in a hundred is returned as a note, more is a warning, above half an error.
    Where more than one in a hundred captions of a split are cut, one warning says so.

    Args:
        tokenizer: the run's own.
        dataset: the data set, which may lose captions.
        splits: the splits that are used; others are left as they are.
        max_tokens: longer captions are cut, special tokens included.
        allow_unknown: warn of more than half as well.
        option: the option of ``allow_unknown``, for the message.
        tokens_option: the option of ``max_tokens``, for the message.
        trained: whether it is that of a run that is over, where nobody can raise it, nor take
            another tokenizer.
        own: whether the tokenizer was made of the training captions.

    Returns:
        A sentence a split that has unknown captions and no warning of them.

    Raises:
        InputError: for more than half unknown captions in a split, or a split without a caption
            that has a token.
    """
    unknown_id = tokenizer.unk_token_id
    special = (frozenset(tokenizer.all_special_ids) - {unknown_id}) | blank_ids(tokenizer)
    room = max_tokens - tokenizer.num_special_tokens_to_add()
    notes: list[str] = []
    cut: list[str] = []
    longest = 0
    advice = _advice(own=own, trained=trained)
    for split in dict.fromkeys(splits):
        found = _Found()
        wordless: list[int] = []
        for texts in _in_parts(dataset, split):
            for text, ids in zip(texts, _tokens(tokenizer, texts), strict=True):
                read = set(ids[:room]) - special
                if not read or not text.strip():
                    wordless.append(found.captions)
                elif read == {unknown_id}:
                    found.unknown += 1
                    found.example = found.example or text
                found.captions += 1
                found.cut += len(ids) > room
                longest = max(longest, len(ids))
        if wordless:
            _drop(dataset, split, wordless, found.captions, advice)
        if found.unknown:
            notes += _judge(dataset.name, split, found, tokenizer, allow_unknown, option, advice)
        if is_many_cut(found.cut, found.captions):
            share = found.cut / found.captions
            cut.append(f"{share:.0%} of the {found.captions:,} captions of split {split!r}")
    if cut:
        whose, shorter = "", "raise it or shorten them"
        if trained:
            whose, shorter = "the run's ", "shorten them, or train a model with a larger one"
        warn_of_cut(
            f"{dataset.name}: {listed(cut)} are longer than {whose}`{tokens_option}`, {max_tokens}",
            f"The longest has {longest + max_tokens - room} tokens; {shorter}.",
            stacklevel=3,
        )
    return notes


def is_many_cut(cut: int, captions: int) -> bool:
    """Whether so many of the captions are cut that it is worth a warning."""
    return cut > _WARN_ABOVE * captions


def warn_of_cut(what: str, advice: str, *, stacklevel: int) -> None:
    """Warn of captions that are cut.

    Args:
        what: which are longer than which option.
        advice: how long they are, and what to do, as a sentence.
        stacklevel: of the caller's caller, as :func:`warnings.warn` counts.
    """
    warnings.warn(
        f"{what}: their end is cut although it is heard. {advice}", stacklevel=stacklevel + 1
    )


def _in_parts(dataset: AudioTextDataset, split: str) -> Iterator[list[str]]:
    texts: list[str] = []
    for clip in dataset.clips(split):
        texts.extend(clip.captions)
        if len(texts) >= _CAPTIONS_A_CALL:
            yield texts
            texts = []
    if texts:
        yield texts


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Sequence[Sequence[int]]:
    """All tokens of texts, however many, without special ones."""
    if tokenizer.is_fast:  # half of the time; the next call sets both options as it needs them
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return [x.ids for x in backend.encode_batch_fast(texts, add_special_tokens=False)]
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, truncation=False, verbose=False
    )["input_ids"]
    return ids


def _advice(*, own: bool, trained: bool) -> str:
    """What to do about captions that the tokenizer does not know."""
    if trained:
        return "correct these captions, or train a model with a tokenizer that knows their letters"
    if own:
        return (
            "it was made of the training captions and knows their letters alone: correct these "
            "captions, add such ones to the training split, or name one that knows them with "
            "`tokenizer.name`"
        )
    return "take one that knows the captions' script"


def _drop(
    dataset: AudioTextDataset, split: str, wordless: list[int], captions: int, advice: str
) -> None:
    if len(wordless) == captions:
        raise InputError(
            f"{dataset.name}: the tokenizer leaves no token of any caption of split {split!r}; "
            f"{advice}."
        )
    clips = dataset.drop_captions(split, wordless)
    warnings.warn(
        f"{dataset.name}: the tokenizer leaves no token of {len(wordless):,} of {captions:,} "
        f"captions of split {split!r}, which are dropped"
        + (f", and with them {counted(clips, 'clip')} without another" if clips else ""),
        stacklevel=3,
    )


def _judge(
    name: str,
    split: str,
    found: _Found,
    tokenizer: PreTrainedTokenizerBase,
    allow_unknown: bool,
    option: str,
    advice: str,
) -> list[str]:
    share = found.unknown / found.captions
    message = (
        f"{name}: {found.unknown:,} of {found.captions:,} captions ({share:.1%}) of split "
        f"{split!r} {'is' if found.unknown == 1 else 'are'} {tokenizer.unk_token} alone to the "
        f"tokenizer, such as {found.example[:60]!r}"
    )
    if share > _REFUSE_ABOVE and not allow_unknown:
        raise InputError(f"{message}; {advice}, or set `{option}=true` to go on.")
    if share <= _WARN_ABOVE:
        return [message]
    warnings.warn(f"{message}; {advice}", stacklevel=3)
    return []
