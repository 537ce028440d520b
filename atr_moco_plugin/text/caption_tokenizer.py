"""The tokenizer of a training: loaded or trained on the captions, and checked against both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.text.checks import check_captions, check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer_for, train_wordpiece


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
        max_tokens: longer captions are cut.
        allow_unknown: go on where more than half of the captions are ``[UNK]`` alone.
        note: called with what was found, in a sentence each.

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
        tokenizer, dataset, splits, max_tokens, allow_unknown=allow_unknown
    ):
        note(found)
    return tokenizer
