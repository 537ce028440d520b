"""Tokenizers that are not BERT's, trained on a few captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CAPTIONS = [
    "A dog barks while rain falls.",
    "Rain falls on a roof, and a dog barks!",
    "a dog barks while rain falls",
    "A man speaks as a dog whimpers.",
]


def byte_level(folder: Path, captions: Sequence[str] = CAPTIONS) -> Path:
    """A tokenizer like GPT's: pieces of bytes, one special token, nothing to pad with."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<|end|>"], initial_alphabet=alphabet)
    backend.train_from_iterator([*captions, "a   b\n\n\tc"] * 3, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", unk_token="<|end|>", padding_side="left"
    ).save_pretrained(folder)
    return folder


def sentence_pieces(folder: Path, captions: Sequence[str] = CAPTIONS) -> Path:
    """A tokenizer like T5's: sentence pieces, and `</s>` behind a caption."""
    backend = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(r"[\s\u200b]+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), spaces])
    backend.decoder = decoders.Metaspace()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    backend.train_from_iterator(captions, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder
