from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.opening.duplicates import equal_sources, file_identity, same_files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_links_and_spellings_lead_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "soft.wav").symlink_to("a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "hard.wav")
    (tmp_path / "e").symlink_to("d")
    names = ["a.wav", "b.wav", "./a.wav", "d/../a.wav", "e/../a.wav", "soft.wav", "hard.wav", "no"]
    paths = [f"{tmp_path}/{name}" for name in names]
    alike = [k for k, path in enumerate(paths) if file_identity(path) == file_identity(paths[0])]
    assert [alike] == [[0, 2, 3, 4, 5, 6]] == same_files(paths)
    assert file_identity(paths[7]) == file_identity(paths[7]) != file_identity(paths[1])
    assert file_identity(Segment(paths[0], 0, 1)) == file_identity(paths[5])
    parts = [FileSlice(tmp_path / "a.wav", at, 5, "x") for at in (0, 5)]
    assert same_files(parts) == [] and file_identity(parts[0]) != file_identity(parts[1])


def test_inode_numbers_that_a_network_file_system_repeats_join_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    first = os.stat(tmp_path / "a")
    monkeypatch.setattr(os, "stat", lambda path, **options: first)
    assert file_identity(f"{tmp_path}/a") != file_identity(f"{tmp_path}/b")
    assert same_files([f"{tmp_path}/a", f"{tmp_path}/b"]) == []


def sound(seed: int, size: int = 40_000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_equal_bytes_are_found_and_nearly_equal_ones_are_not(tmp_path: Path) -> None:
    data = sound(0)
    contents = {"a": data, "b": data, "empty": b"", "void": b""}
    contents |= {"short": data[:9], "cut": data[:9]}
    for at in (0, 4096, 20_000, 25_001, len(data) - 1):
        other = bytearray(data)
        other[at] ^= 1
        contents[f"differs at {at}"] = bytes(other)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = [*contents, "missing"]
    groups = equal_sources([str(tmp_path / name) for name in names])
    assert [[names[k] for k in group] for group in groups] == [["a", "b"], ["short", "cut"]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read beyond their first block, once for each step."""
    names: list[str] = []
    real = open

    def spy(path: str, mode: str = "r") -> IO[bytes]:
        names.append(Path(path).name)
        return real(path, mode)

    monkeypatch.setattr("builtins.open", spy)
    return names


def test_files_that_differ_are_hardly_read(tmp_path: Path, opened: list[str]) -> None:
    for name in range(20):
        (tmp_path / f"{name}").write_bytes(sound(name))
    (tmp_path / "copy").write_bytes(sound(3))
    paths = [str(tmp_path / f"{name}") for name in [*range(20), "copy"]]
    assert equal_sources(paths) == [[3, 20]]
    assert opened == ["3", "copy"] * 2


def test_the_digest_of_a_whole_file_is_kept(tmp_path: Path, cache: Path, opened: list[str]) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(sound(0))
    paths = [str(tmp_path / name) for name in "ab"]
    assert equal_sources(paths) == [[0, 1]]
    entries = [path for path in cache.rglob("*") if path.is_file()]
    assert len(entries) == 2
    opened.clear()
    assert equal_sources(paths) == [[0, 1]]
    assert opened == ["a", "b"]  # for blocks alone
    entries[0].write_bytes(b"\xff damaged")
    assert equal_sources(paths) == [[0, 1]]
    changed = bytearray(sound(0))
    changed[2_000] ^= 1  # in none of the blocks
    (tmp_path / "b").write_bytes(changed)
    os.utime(tmp_path / "b", ns=(1, 1))
    assert equal_sources(paths) == []


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    for name in "ab":
        (tmp_path / name).write_bytes(sound(0))
    assert equal_sources([str(tmp_path / name) for name in "ab"]) == [[0, 1]]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_digital_silence_is_no_recording(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.{suffix}", np.zeros(8_000), 16_000)
    paths = [str(tmp_path / f"{name}.{suffix}") for name in "ab"]
    assert equal_sources(paths) == []
    assert equal_sources(paths, silence=True) == ([[0, 1]] if suffix != "ogg" else [])


def test_members_of_tars_are_compared(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    one, two = (write_audio(tmp_path / f"{name}.flac") for name in "ab")
    slices = []
    for number, files in enumerate(([one, two], [one])):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in files:
                archive.add(path, path.name)
        with tarfile.open(tmp_path / f"{number}.tar") as archive:
            slices += [
                FileSlice(tmp_path / f"{number}.tar", m.offset_data, m.size, m.name)
                for m in archive.getmembers()
            ]
    assert equal_sources(slices) == [[0, 2]]
    assert equal_sources([*slices, str(one)]) == [[0, 2, 3]]


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_plain_file_is_never_waited_for(tmp_path: Path, what: str) -> None:
    for name in "ab":
        os.mkfifo(tmp_path / name) if what == "pipe" else (tmp_path / name).mkdir()
    assert equal_sources([str(tmp_path / name) for name in "ab"]) == []
