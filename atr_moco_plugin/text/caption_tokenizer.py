"""The tokenizer of a training: loaded or trained on the captions, and checked against both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerFast

from atr_moco_plugin.data.audio.mix import MixConfig, join_captions
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.text.checks import (
    check_captions,
    check_tokenizer,
    is_many_cut,
    warn_of_cut,
)
from atr_moco_plugin.text.tokenizer import load_tokenizer_for, train_wordpiece

_JOINED = 2_000


def caption_tokenizer(
    encoder: Any,
    dataset: AudioTextDataset,
    splits: Sequence[str],
    *,
    name: str | PreTrainedTokenizerFast | None,
    vocab_size: int,
    max_tokens: int,
    allow_unknown: bool,
    note: Callable[[str], object],
    mix: MixConfig | None = None,
) -> PreTrainedTokenizerFast:
    """Load a tokenizer, or train one on the training captions, and check it.

    Captions of which it leaves nothing are dropped, see :mod:`atr_moco_plugin.text.checks`.

    Args:
        encoder: the text encoder.
        dataset: the data set.
        splits: the splits that are read; the first one is trained on.
        name: a tokenizer, or as for :func:`~atr_moco_plugin.text.tokenizer.load_tokenizer`; None
            takes that of the text encoder's weights where the encoder says so, and else trains one.
        vocab_size: of a vocabulary that is trained here.
        max_tokens: longer captions are cut, and warned of where many are.
        allow_unknown: go on where more than half of the captions are ``[UNK]`` alone.
        note: called with what was found, in a sentence each.
        mix: how training captions are joined; warns where many of those would be cut.

    Raises:
        InputError: for a tokenizer that does not fit the text encoder or the captions, naming the
            key of a recipe.
    """
    name = getattr(encoder, "tokenizer_source", None) if name is None else name
    if name is not None and not isinstance(name, str):
        tokenizer = name
    elif name is not None:
        tokenizer = load_tokenizer_for(encoder, name)
    else:
        captions = [text for clip in dataset.clips(splits[0]) for text in clip.captions]
        tokenizer = train_wordpiece(captions, vocab_size)
    vocabulary = getattr(encoder, "vocabulary_option", "vocab_size")
    check_tokenizer(
        tokenizer,
        encoder,
        max_tokens,
        tokens_key="tokenizer.max_tokens",
        vocabulary_key=f"model.config_overrides.text.config.{vocabulary}",
    )
    for found in check_captions(
        tokenizer,
        dataset,
        splits,
        max_tokens,
        allow_unknown=allow_unknown,
        tokens_option="tokenizer.max_tokens",
        own=name is None,
    ):
        note(found)
    if mix is not None:
        _warn_of_cut_mixtures(tokenizer, dataset, splits[0], max_tokens, mix)
    return tokenizer


def _warn_of_cut_mixtures(
    tokenizer: PreTrainedTokenizerFast,
    dataset: AudioTextDataset,
    split: str,
    max_tokens: int,
    mix: MixConfig,
) -> None:
    """A joined caption that is cut says less than is heard, though it counts as both."""
    rng, clips = Random(0), dataset.clips(split)
    joined = []
    for _ in range(_JOINED):
        one, two = (rng.choice(clips[rng.randrange(len(clips))].captions) for _ in range(2))
        joined.append(join_captions(one, two, rng.choice(mix.wordings)))
    longest = [len(ids) for ids in tokenizer(joined, truncation=False, verbose=False)["input_ids"]]
    cut = sum(length > max_tokens for length in longest)
    if is_many_cut(cut, len(joined)):
        warn_of_cut(
            f"{dataset.name}: `dataset.mix` joins captions, and {cut / len(joined):.0%} of those "
            f"are longer than `tokenizer.max_tokens`, {max_tokens}",
            f"The longest of {len(joined):,} has {max(longest)} tokens; raise it, or mix less.",
            stacklevel=3,
        )
