from __future__ import annotations

import sys

import pytest

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.inspection.languages import find_languages
from atr_moco_plugin.inspection.texts import Texts, texts_of

ENGLISH = [
    "A goat bleats nearby", "Two men talk nearby", "Scraping and banging", "A siren blares",
    "Bad quality audio", "A tool buzzing", "Helicopter blades spinning", "A door is sliding open",
    "A dog barks while a man speaks in the distance", "Rain falls on a roof",
]  # fmt: skip
FOREIGN = {
    "Ein Hund bellt laut": "de",
    "Un homme parle et un chien aboie": "fr",
    "Un perro ladra a lo lejos": "es",
    "Женщина говорит на фоне музыки": "ru",
    "男人在说话，鸟儿在歌唱": "zh",
}


def texts(captions: list[str]) -> Texts:
    clips = [Clip(str(number), (text,), None) for number, text in enumerate(captions)]
    return texts_of({"train": clips})


def test_short_english_captions_stay_english_and_others_are_found() -> None:
    pytest.importorskip("py3langid")
    found = find_languages("d", texts(ENGLISH * 6 + list(FOREIGN)))
    assert found.captions["train"] == {"en": 60, **dict.fromkeys(FOREIGN.values(), 1)}
    assert [x.what.partition(" looks")[0].strip("“”") for x in found.others.findings] == list(
        FOREIGN
    )
    assert "“de” to py3langid" in found.others.findings[0].what


def test_two_common_languages_are_both_common() -> None:
    pytest.importorskip("py3langid")
    found = find_languages("d", texts(ENGLISH * 2 + ["Ein Hund bellt laut"] * 10))
    assert found.captions["train"] == {"en": 20, "de": 10}
    assert not found.others.findings


def test_no_caption_has_no_language() -> None:
    pytest.importorskip("py3langid")
    assert find_languages("d", {}).captions == {}


def test_without_py3langid_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(InputError, match=r"pip install 'atr-moco-plugin\[inspect\]'"):
        find_languages("d", texts(ENGLISH))
