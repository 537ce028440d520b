"""Captions to token ids: load a tokenizer, train one, and pad a batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from atr_moco_plugin.encoders.sources import find_folder
from atr_moco_plugin.errors import InputError, MissingFileError

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_OTHER_FILES = ("vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_SPACES = "\u2581\u0120\u010a\u010d\u0109"
"""How sentence pieces write a space, and how bytes write space, line feed, return and tab."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(name_or_path: str, *, for_bert: bool = True) -> PreTrainedTokenizerFast:
    """Load a tokenizer, which pads on the right.

    Args:
        name_or_path: a local folder, the name of an installed pip package that carries a model
            folder, or a Hugging Face name; the same three sources as ``BertConfig.pretrained``.
        for_bert: whether captions have to be framed as ``[CLS] caption [SEP]``. Otherwise any
            tokenizer will do, such as those of T5 and GPT; one without a padding token, which no
            model reads, pads with that of the end.

    Raises:
        FileNotFoundError: it is in none of the three places, or its files cannot be read.
        InputError: the tokenizer has no ``[CLS]``, ``[SEP]`` or ``[PAD]`` and is to have them, or
            nothing to pad with.
    """
    wanted = TOKENIZER_FILES if for_bert else (*TOKENIZER_FILES, *_OTHER_FILES)
    folder = find_folder(name_or_path, wanted)
    try:
        # Column 0 must be [CLS] and padding must follow, whatever side the files ask for.
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            name_or_path if folder is None else folder,
            local_files_only=folder is not None,
            # Not None, which asks whether to run Python code that the files name.
            trust_remote_code=False,
            padding_side="right",
            truncation_side="right",
        )
    except Exception as error:  # damaged files raise nearly anything
        raise MissingFileError(
            f"The tokenizer '{name_or_path}' could not be loaded ({type(error).__name__}): give a "
            "local folder that a tokenizer was saved to, or make one from your captions with "
            "train_wordpiece."
        ) from error
    if not for_bert and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    for token in ("cls_token", "sep_token", "pad_token") if for_bert else ("pad_token",):
        if getattr(tokenizer, token) is None:
            raise InputError(
                f"The tokenizer '{name_or_path}' has no {token}: give one made for "
                f"{'BERT' if for_bert else 'the text encoder'}."
            )
    return tokenizer


def load_tokenizer_for(encoder: object, name_or_path: str) -> PreTrainedTokenizerFast:
    """:func:`load_tokenizer` for a text encoder: of any kind where it publishes a
    ``tokenizer_source``, else one made for BERT."""
    return load_tokenizer(name_or_path, for_bert=not hasattr(encoder, "tokenizer_source"))


def train_wordpiece(
    captions: Sequence[str], vocab_size: int = 8192, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Train a word-piece tokenizer with BERT's normalisation and ``[CLS] caption [SEP]``.

    Equal captions in equal order give equal ids, in every process. Pieces seen only once are not
    learned; words made of them are spelled in smaller pieces.

    Args:
        captions: training captions.
        vocab_size: upper limit of the number of pieces, including the five special pieces (ids 0
            to 4: ``[PAD]``, ``[UNK]``, ``[CLS]``, ``[SEP]``, ``[MASK]``).
        lowercase: lower the case and strip accents.

    Raises:
        InputError: ``captions`` hold no word, or ``vocab_size`` has no room for their characters.
    """
    tokenizer = _bert_tokenizer({}, lowercase)
    words = {
        word
        for caption in captions
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(caption)
        )
    }
    if not words:
        raise InputError("A tokenizer cannot be trained on captions without a word.")
    # The trainer numbers in-word letters in the order of a hash map, which differs between
    # processes and decides ties. As "special tokens" they get their ids first, in this order.
    inner = sorted({f"##{letter}" for word in words for letter in word[1:]})
    needed = len(SPECIAL_TOKENS) + len(inner) + len({letter for word in words for letter in word})
    if vocab_size < needed:
        raise InputError(
            f"vocab_size {vocab_size} has no room for the letters of these captions: give at "
            f"least {needed}."
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        limit_alphabet=needed,
        show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *inner],
    )
    tokenizer.train_from_iterator(captions, trainer)
    # Made anew from the pieces, so that the in-word letters are not special in a caption.
    trained = _bert_tokenizer(tokenizer.get_vocab(), lowercase)
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, trained.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=trained,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _bert_tokenizer(vocab: dict[str, int], lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    captions: Sequence[str],
    max_tokens: int,
    numbers: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn captions into one padded batch.

    Args:
        tokenizer: from :func:`load_tokenizer` or :func:`train_wordpiece`.
        captions: B captions.
        max_tokens: longer captions are cut to this many tokens, special ones such as ``[CLS]`` and
            ``[SEP]`` included.
        numbers: what to call each caption in messages, where they are a part of those that a user
            gave; None counts them from 0.

    Returns:
        ``input_ids`` ``[B, L]`` int64, padded to the longest caption, and ``mask`` ``[B, L]`` bool,
        ``True`` where a token is of the caption.

    Raises:
        InputError: no caption, one without a word, by its number, or a ``max_tokens`` without room
            for a word.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise InputError(
            f"max_tokens must be at least {special + 1} to leave room for a word beside the "
            f"special tokens, but is {max_tokens}."
        )
    if not captions:
        raise InputError("There is no caption to tokenize: give at least one.")
    batch = tokenizer(
        list(captions),
        padding="longest",
        padding_side="right",
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = batch["attention_mask"].to(torch.bool)
    words = mask
    if blank := blank_ids(tokenizer):
        words = mask & ~torch.isin(batch["input_ids"], torch.tensor(sorted(blank)))
    for index, length in enumerate(words.sum(dim=1).tolist()):
        if length <= special or not captions[index].strip():
            number = index if numbers is None else numbers[index]
            raise InputError(
                f"Caption {number} ({captions[index]!r}) holds no word: drop it or correct it."
            )
    return batch["input_ids"], mask


@functools.lru_cache(maxsize=4)
def blank_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of tokens that are spaces alone, which word pieces have not, but sentence pieces and
    bytes have."""
    if tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordPiece):
        return frozenset()
    special = set(tokenizer.all_special_ids)
    vocabulary = tokenizer.get_vocab().items()
    return frozenset(x for token, x in vocabulary if x not in special and not token.strip(_SPACES))
