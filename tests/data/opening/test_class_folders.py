from __future__ import annotations

import pytest

from atr_moco_plugin.data.opening.class_folders import words_of_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dog_bark", "dog bark"),
        ("Dog-Bark", "dog bark"),
        ("DogBark", "dog bark"),
        ("101 - Dog", "dog"),
        ("003_rain", "rain"),
        ("2_stroke_engine", "2 stroke engine"),
        ("3-door car", "3 door car"),
        (" car.horn ", "car horn"),
        ("001", "001"),
        ("TV", "tv"),
        ("türklingel", "türklingel"),
        ("cafe\u0301", "caf\u00e9"),
        ("___", ""),
    ],
)
def test_the_name_of_a_folder_in_words(name: str, words: str) -> None:
    assert words_of_name(name) == words
    assert words_of_name(words) == words
