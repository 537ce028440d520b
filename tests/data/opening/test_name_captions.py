from __future__ import annotations

import pytest

from atr_moco_plugin.data.opening.name_captions import caption_of_name


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("dog_barking_02.wav", "dog barking"),
        ("a/b/02 - dog barking.flac", "dog barking"),
        ("dog barking (2).wav", "dog barking"),
        ("DogBarking003.wav", "dog barking003"),
        ("Dog-Barking 003.WAV", "dog barking"),
        ("123456__some_user__Dog-Barks_1.wav", "dog barks"),
        ("2 dogs bark.ogg", "2 dogs bark"),
        ("rain.on.a.roof.mp3", "rain on a roof"),
        ("Un_caf\u00e9.wav", "un caf\u00e9"),
        ("\u72ac\u306e\u58f0.wav", "\u72ac\u306e\u58f0"),
        ("012.wav", ""),
        ("1-100032-A-0.ogg", ""),
        ("_.wav", ""),
        ("x1.wav", ""),
    ],
)
def test_what_a_name_says(name: str, caption: str) -> None:
    assert caption_of_name(name) == caption
