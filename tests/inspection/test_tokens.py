from __future__ import annotations

from pathlib import Path

import pytest
from other_tokenizers import byte_level
from transformers import BertTokenizer

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.inspection.texts import Texts, texts_of
from atr_moco_plugin.inspection.tokens import find_tokens
from atr_moco_plugin.text.tokenizer import load_tokenizer, train_wordpiece

CAPTIONS = ["a dog barks", "a cat and a dog", "a dog barks; a cat", "Ω a dog", "a dog barks"]


@pytest.fixture
def texts() -> Texts:
    clips = [Clip(str(number), (text,), None) for number, text in enumerate(CAPTIONS)]
    return texts_of({"train": clips})


def test_unknown_words_and_cut_captions_are_named(texts: Texts) -> None:
    tokenizer = train_wordpiece(["a dog barks", "a cat and a dog"] * 3)
    found = find_tokens("d", texts, tokenizer, 7)
    want = [len(tokenizer(text)["input_ids"]) for text in CAPTIONS]
    assert sorted(found.lengths) == sorted(want)
    assert found.unknown_words == {";": 1, "Ω": 1}
    assert found.unknown.captions == {"train": 2}
    whats = [finding.what for finding in found.unknown.findings]
    assert whats == [
        "“a dog barks; a cat” has 1 unknown token: “;”.",
        "“Ω a dog” has 1 unknown token: “Ω”.",
    ]
    assert [finding.what for finding in found.cut.findings] == [
        "“a dog barks; a cat” has 8 tokens, of which the last 1 are cut at 7."
    ]
    assert found.has_unknown


def test_a_tokenizer_of_bytes_knows_every_text(texts: Texts, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(byte_level(tmp_path)), for_bert=False)
    found = find_tokens("d", texts, tokenizer, 64)
    assert not found.unknown.findings
    assert not found.has_unknown


def test_a_slow_tokenizer_counts_unknown_tokens_without_their_words(
    texts: Texts, tmp_path: Path
) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "barks", "cat", "and"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    found = find_tokens("d", texts, tokenizer, 64)
    assert found.unknown.captions == {"train": 2}


def test_the_tokenizers_own_cut_changes_no_length(texts: Texts) -> None:
    tokenizer = train_wordpiece(["a dog barks", "a cat and a dog"] * 3)
    tokenizer(["a dog barks"], truncation=True, max_length=4, padding="max_length")
    assert find_tokens("d", texts, tokenizer, 64).lengths.max() == 8


def test_no_room_for_a_word_is_refused(texts: Texts) -> None:
    with pytest.raises(InputError, match="give at least 3"):
        find_tokens("d", texts, train_wordpiece(["a dog"] * 3), 2)
