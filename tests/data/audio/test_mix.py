"""Mixtures of two clips and their captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.data.audio.mix import MixConfig, join_captions, mix
from atr_moco_plugin.errors import InputError


@dataclass
class Section:
    """As a section of a recipe has it."""

    mix: MixConfig | None = None


def tone(samples: int, level: float, period: int = 8) -> np.ndarray:
    return (level * np.sin(2 * np.pi * np.arange(samples) / period)).astype(np.float32)


def level_of(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@given(
    n=st.integers(1, 60), m=st.integers(1, 60), level=st.floats(-30, 30), place=st.floats(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_sum_has_the_drawn_level(n: int, m: int, level: float, place: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    # So soft that nothing reaches full scale.
    first, second = (draw.normal(size=k).astype(np.float32) * 1e-3 for k in (n, m))
    found = mix(first, second, level, place)
    assert found is not None and found.dtype == np.float32 and len(found) == max(n, m)
    wanted = second * (level_of(first) / level_of(second) * 10 ** (level / 20))
    start = round(place * abs(n - m))
    expected = np.zeros(max(n, m))
    for x in (first, wanted):
        at = 0 if len(x) == max(n, m) else start
        expected[at : at + len(x)] += x
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_loud_sum_is_scaled_and_not_clipped() -> None:
    first = tone(80, 0.9)
    found = mix(first, first, 0.0, 0.0)
    assert found is not None and np.abs(found).max() == pytest.approx(1.0)
    np.testing.assert_allclose(found, found.max() * first / first.max(), atol=1e-6)
    beyond = mix(3 * first, first, -20.0, 0.0)
    assert beyond is not None and np.abs(beyond).max() == pytest.approx(2.7, rel=1e-6)


def test_silence_has_no_level() -> None:
    sound, silence = tone(80, 0.5), np.zeros(40, np.float32)
    for pair in ((sound, silence), (silence, sound), (np.zeros(0, np.float32), sound)):
        assert mix(*pair, 0.0, 0.5) is None


@pytest.mark.parametrize(
    ("first", "second", "wording", "expected"),
    [
        ("A dog barks.", "Rain falls.", "{}, and {}", "A dog barks, and rain falls."),
        ("dog ", "rain", "{} and {}", "dog and rain"),
        ("A bell!", "I laugh", "{}, {}", "A bell, I laugh"),
        ("A bell", "I'm here", "{} and {}", "A bell and I'm here"),
        ("A bell", "BBC news starts", "{} and {}", "A bell and BBC news starts"),
        ("A {} bell", "a {0} song", "{} and {}", "A {} bell and a {0} song"),
    ],
)
def test_captions_are_one_sentence(first: str, second: str, wording: str, expected: str) -> None:
    assert join_captions(first, second, wording) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probability": 1.5}, "`probability` is 1.5, expected"),
        ({"level_db": -1.0}, "`level_db` is -1.0, expected"),
        ({"wordings": ()}, "`wordings` is empty"),
        ({"wordings": ("{} and",)}, "expected two {} for the two captions"),
        ({"wordings": ("{} {} {x}",)}, "expected two {} for the two captions"),
    ],
)
def test_options_out_of_range(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("{", r"\{")):
        MixConfig(**options)


def test_wordings_come_from_a_list_of_a_configuration() -> None:
    values = {"mix": {"probability": 0.25, "wordings": ["{} und {}"]}}
    found = build_config(Section, values, "dataset").mix
    assert found == MixConfig(probability=0.25, wordings=("{} und {}",))
