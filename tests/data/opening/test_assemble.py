from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from atr_moco_plugin.data.audio.read import MIN_SECONDS, read_audio
from atr_moco_plugin.data.opening.assemble import OpeningConfig, assemble
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.data.opening.headers import read_headers

LENIENT = OpeningConfig(strict=False, check_audio=True, cache=False)


def table(folder: Path | None, *keys: str) -> CaptionTable:
    """Recordings whose audio is in ``folder``, or missing."""
    made = CaptionTable()
    for key in keys:
        path = None if folder is None else str(folder / f"{key}.wav")
        made.add(Captioned(key, ("a dog",), (key,), path=path), {"key": key})
    return made


def test_headers_in_order_of_all_kinds_of_files(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    good = [write_audio(tmp_path / f"{n}.wav", seconds=0.2 + n / 100) for n in range(150)]
    paths = [str(path) for path in good]
    found = list(read_headers(paths))
    expected = [0.2 + n / 100 for n in range(150)]
    assert [header.seconds for header in found] == pytest.approx(expected)
    assert not any(problem for _, _, problem in found)
    for suffix in ("flac", "ogg", "mp3", "aiff"):
        path = write_audio(tmp_path / f"a.{suffix}", seconds=1.0, rate=44_100)
        ((seconds, rate, problem),) = read_headers([str(path)])
        assert (round(seconds, 1), rate, problem) == (1.0, 44_100, "")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("extra", [-40, -1, 0, 1, 40])
def test_what_is_too_short_is_what_the_decoder_refuses(
    tmp_path: Path, rate: int, extra: int
) -> None:
    path = tmp_path / "a.wav"
    samples = int(MIN_SECONDS * rate) + extra
    soundfile.write(path, np.zeros(samples), rate)
    ((_, _, problem),) = read_headers([str(path)])
    if problem:
        assert problem == f"lasts {samples / rate:.3f} s, less than 0.175 s"
        with pytest.raises(ValueError, match="at least 0.175 s is needed"):
            read_audio(path, 16_000)
    else:
        read_audio(path, 16_000)


def test_broken_headers_are_described(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no audio at all")
    (tmp_path / "folder.wav").mkdir()
    cut = write_audio(tmp_path / "cut.flac")
    cut.write_bytes(cut.read_bytes()[:30])
    names = ("empty.wav", "text.wav", "folder.wav", "cut.flac", "gone.wav")
    found = list(read_headers([str(tmp_path / name) for name in names]))
    assert all(np.isnan(seconds) and problem for seconds, _, problem in found)
    assert found[0].problem == "not readable as audio (the file is empty)"
    assert not any(str(tmp_path) in problem for _, _, problem in found)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_that_ends_early_is_found_when_opening(
    tmp_path: Path, write_audio: Callable[..., Path], suffix: str
) -> None:
    cut = write_audio(tmp_path / f"cut.{suffix}", seconds=2.0)
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    ((_, _, problem),) = read_headers([str(cut)])
    assert problem.startswith("is truncated, ")


def test_the_first_broken_files_are_named_in_one_warning(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9)]
    for key in keys:
        (tmp_path / f"{key}.wav").touch()
    soundfile.write(tmp_path / "k8.wav", np.zeros(4800), 16_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = assemble("d", {"train": table(tmp_path, *keys)}, tmp_path, LENIENT)
    (message,) = [str(item.message) for item in caught]
    assert message.startswith("d: 8 audio files are left out: ")
    assert message.count("the file is empty") == 3 and "and 5 more; replace them" in message
    assert [clip.key for clip in data.clips("train")] == ["k8"]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"d: 1 audio file is not usable: .*; replace it"):
        assemble("d", {"test": table(tmp_path, "a")}, tmp_path, LENIENT)


def test_all_keys_in_two_splits_are_counted(tmp_path: Path) -> None:
    tables = {"train": table(None, *"abcde"), "test": table(None, *"edcbx")}
    with pytest.raises(ValueError, match="both 'train' and 'test': 'e', 'd', 'c', 'b';"):
        assemble("d", tables, tmp_path, LENIENT)
