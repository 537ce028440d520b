from __future__ import annotations

import pytest

from atr_moco_plugin.evaluation import evaluation_set_name


@pytest.mark.parametrize("clips", [883, 957, 975])
def test_the_audiocaps_test_sets_in_use_are_told_apart(clips: int) -> None:
    assert (
        evaluation_set_name("AudioCaps", "test", clips) == f"AudioCaps test, {clips}-clip version"
    )


def test_another_number_of_clips_is_said_to_be_none_of_them() -> None:
    name = evaluation_set_name("audiocaps", "test", 1024)
    assert name.startswith("AudioCaps test, 1,024 clips (none of the versions in use")
    assert all(str(clips) in name for clips in (883, 957, 975))


def test_other_sets_are_named_by_what_they_are() -> None:
    assert evaluation_set_name("audiocaps", "valid", 957) == "audiocaps valid"
    assert evaluation_set_name("clotho", "test", 1045) == "clotho test"
