"""What a tokenizer must fit: the text encoder's embeddings and positions, and the captions."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from other_tokenizers import sentence_pieces
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLNetConfig,
    XLNetModel,
)

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.text.checks import check_captions, check_tokenizer, text_positions
from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize, train_wordpiece

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
DOG, RAIN = "a dog barks", "rain falls"
JAPANESE = "\u72ac\u304c\u5420\u3048\u308b"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_wordpiece([DOG, RAIN, "a roof"], vocab_size=60)


def data(captions: dict[str, list[tuple[str, ...]]]) -> AudioTextDataset:
    splits = {
        split: [Clip(f"{split}/{i}", texts, "x.wav") for i, texts in enumerate(rows)]
        for split, rows in captions.items()
    }
    return AudioTextDataset("mine", splits)


def bert(vocab_size: int, positions: int = 16) -> BertModel:
    return BertModel(BertConfig(vocab_size=vocab_size, max_position_embeddings=positions, **SIZES))


def test_more_ids_than_embeddings_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(tokenizer)
    check_tokenizer(tokenizer, bert(size), 16)
    check_tokenizer(tokenizer, bert(size + 3), 16)
    with pytest.raises(InputError, match=f"has {size} tokens, .* for {size - 1}; set `vocab_size="):
        check_tokenizer(tokenizer, bert(size - 1), 16)


def test_the_largest_id_counts_and_not_the_number_of_tokens() -> None:
    holes = train_wordpiece([DOG], vocab_size=40)
    backend = holes.backend_tokenizer
    vocab = backend.get_vocab()
    vocab[max(vocab, key=vocab.__getitem__)] = 90
    backend.model = type(backend.model)(vocab, unk_token="[UNK]")
    sparse = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert len(sparse) < 90
    with pytest.raises(InputError, match="The tokenizer has 91 tokens"):
        check_tokenizer(sparse, bert(len(sparse)), 16)


def test_captions_longer_than_the_positions_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(InputError, match="`max_tokens` is 17, .* 16 tokens; set it to 16 or less"):
        check_tokenizer(tokenizer, bert(60), 17)
    config = RobertaConfig(vocab_size=60, max_position_embeddings=16, pad_token_id=1, **SIZES)
    roberta = RobertaModel(config).eval()
    check_tokenizer(tokenizer, roberta, 14)
    with torch.no_grad():
        assert roberta(torch.full((1, 14), 5)).last_hidden_state.shape[1] == 14
    with pytest.raises(InputError, match="positions for 14 tokens"):
        check_tokenizer(tokenizer, roberta, 15)


def test_a_number_of_positions_below_one_is_no_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 8}
    xlnet = XLNetModel(XLNetConfig(vocab_size=len(tokenizer), **sizes))
    assert xlnet.config.max_position_embeddings == -1
    assert text_positions(xlnet) is None
    check_tokenizer(tokenizer, xlnet, 10_000)


def test_an_encoder_that_says_nothing_is_not_checked(tokenizer: PreTrainedTokenizerFast) -> None:
    check_tokenizer(tokenizer, torch.nn.Identity(), 10_000)


def test_captions_without_a_token_are_dropped_and_counted(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # To BERT's normaliser a replacement character is nothing; to the ids it is no word either,
    # so captions with it come from data sets that are made without a table.
    nothing = "\ufffd"
    dataset = data({"train": [(DOG, nothing), (nothing,), (RAIN,)], "valid": [(nothing, DOG)]})
    assert len(dataset.clips("train")) == 3
    with pytest.raises(InputError, match="holds no word"):
        tokenize(tokenizer, [nothing], 16)
    with pytest.warns(UserWarning, match=r"mine: the tokenizer leaves no token of 2 of 4 captions"):
        assert check_captions(tokenizer, dataset, ["train"], 16) == []
    assert [clip.captions for clip in dataset.clips("train")] == [(DOG,), (RAIN,)]
    assert dataset.counts["train"].empty_captions == 2 and dataset.counts["train"].no_caption == 1
    assert dataset.clips("valid")[0].captions == (nothing, DOG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_captions(tokenizer, dataset, ["train", "train"], 16)
    only = data({"train": [(nothing,)]})
    with pytest.raises(InputError, match="leaves no token of any caption of split 'train'; take"):
        check_captions(tokenizer, only, ["train"], 16)


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_share_of_one_in_a_hundred_is_named(
    tokenizer: PreTrainedTokenizerFast, unknown: int
) -> None:
    dataset = data({"train": [(DOG,)] * (100 - unknown) + [(JAPANESE,)] * unknown})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = check_captions(tokenizer, dataset, ["train"], 16)
    said = "mine: 1 of 100 captions (1.0%) of split 'train' is [UNK] alone to the tokenizer, such"
    assert [note.startswith(said) for note in notes] == [True] * unknown


def test_a_larger_share_is_warned_of_and_more_than_half_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    half = data({"train": [(DOG,)] * 50 + [(f"{JAPANESE} \U0001f415",)] * 50})
    with pytest.warns(UserWarning, match=r"50 of 100 captions \(50.0%\) .* take one that knows"):
        assert check_captions(tokenizer, half, ["train"], 16) == []
    more = data({"train": [(DOG,)], "valid": [(DOG,), (JAPANESE,), ("\U0001f415",)]})
    check_captions(tokenizer, more, ["train"], 16)
    with pytest.raises(InputError, match="2 of 3 captions .*'valid' .* set `tokenizer.allow_unkn"):
        check_captions(tokenizer, more, ["train", "valid"], 16)
    with pytest.warns(UserWarning, match="2 of 3 captions"):
        check_captions(tokenizer, more, ["train", "valid"], 16, allow_unknown=True)


def test_what_helps_depends_on_whose_tokenizer_it_is(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """One made of the training captions knows no script, and that of a run cannot be another."""
    some = data({"test": [(DOG,), (RAIN,), ("#;0",)]})
    own = (
        "made of the training captions.*: correct these captions, add such ones .*`tokenizer.name`"
    )
    of_run = "correct these captions, or train a model with a tokenizer that knows their letters"
    for options, said in (({"own": True}, own), ({"trained": True}, of_run)):
        with pytest.warns(UserWarning, match=said) as caught:
            check_captions(tokenizer, some, ["test"], 16, **options)
        assert "script" not in str(caught[0].message)
        with pytest.raises(InputError, match=f"{said}.*, or set `tokenizer.allow_unknown=true`"):
            check_captions(tokenizer, data({"test": [("#;0",)]}), ["test"], 16, **options)
        with pytest.raises(InputError, match=f"leaves no token .*{said}"):
            check_captions(tokenizer, data({"test": [("\ufffd",)]}), ["test"], 16, **options)


def test_what_is_cut_off_does_not_count(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = data({"train": [(f"{JAPANESE * 9} {DOG}",), (DOG,), (RAIN,)]})
    check_captions(tokenizer, dataset, ["train"], 64)
    with pytest.warns(UserWarning, match="1 of 3 captions"):
        check_captions(tokenizer, dataset, ["train"], 5)


def test_spaces_of_sentence_pieces_are_no_word(tmp_path: Path) -> None:
    pieces = load_tokenizer(str(sentence_pieces(tmp_path)), for_bert=False)
    dataset = data({"train": [(DOG,), ("\u200b \u200b",), (RAIN,)]})
    with pytest.warns(UserWarning, match="leaves no token of 1 of 3 captions"):
        check_captions(pieces, dataset, ["train"], 16)
    assert len(dataset.clips("train")) == 2


def test_captions_that_are_cut_are_warned_of_once(tokenizer: PreTrainedTokenizerFast) -> None:
    long = " ".join([DOG] * 5)  # 15 tokens or more, and two around them
    dataset = data({"train": [(DOG,)] * 98 + [(long,)] * 2, "valid": [(long,), (DOG,)]})
    longest = len(tokenizer(long)["input_ids"])
    said = (
        r"mine: 2% of the 100 captions of split 'train', 50% of the 2 captions of split 'valid' "
        rf"are longer than `tokenizer.max_tokens`, 12: .*The longest has {longest} tokens; raise it"
    )
    with pytest.warns(UserWarning, match=said) as caught:
        notes = check_captions(
            tokenizer, dataset, ["train", "valid"], 12, tokens_option="tokenizer.max_tokens"
        )
    assert notes == [] and len(caught) == 1
    said = (
        rf"than the run's `tokenizer.max_tokens`, 12: .* {longest} tokens; shorten them, or train"
    )
    with pytest.warns(UserWarning, match=said):
        check_captions(
            tokenizer, dataset, ["train"], 12, tokens_option="tokenizer.max_tokens", trained=True
        )
    few = data({"train": [(DOG,)] * 99 + [(long,)]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_captions(tokenizer, few, ["train"], 12)
        check_captions(tokenizer, dataset, ["train", "valid"], longest)
