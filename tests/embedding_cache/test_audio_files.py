from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.embedding_cache.audio_files import describe_file, has_changed


def test_a_file_of_another_content_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"12345")
    known = describe_file(str(path))
    assert known is not None and not has_changed(str(path), known)
    path.write_bytes(b"123456")
    assert has_changed(str(path), known)
    path.write_bytes(b"54321")  # the same size, at another time
    assert has_changed(str(path), known)


def test_another_file_of_the_same_size_and_time_has_changed(tmp_path: Path) -> None:
    """As clips of one length have in two releases of an archive whose times are all one."""
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    path.write_bytes(b"12345")
    other.write_bytes(b"54321")
    for file in (path, other):
        os.utime(file, ns=(1, 1))
    known = describe_file(str(path))
    time.sleep(0.05)  # the clock of a disk is a coarse one
    other.replace(path)
    assert known is not None and has_changed(str(path), known)


def test_a_copy_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"12345")
    known = describe_file(str(path))
    os.utime(path, ns=(1, 1))
    assert known is not None and not has_changed(str(path), known)


def test_a_file_that_is_gone_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"12345")
    segment = Segment(str(path), 0, 1)
    known = describe_file(segment)
    path.unlink()
    assert known is not None and not has_changed(segment, known)


def test_a_member_of_an_archive_is_looked_at_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(b"aaaabbbb")
    first, second = FileSlice(path, 0, 4, "a"), FileSlice(path, 4, 4, "b")
    known = [describe_file(first), describe_file(second)]
    path.write_bytes(b"aaaaccccdddd")
    assert [has_changed(x, y) for x, y in zip((first, second), known, strict=True) if y] == [
        False,
        True,
    ]


def test_what_is_no_file_has_nothing_to_look_at() -> None:
    assert describe_file(("toy", 3)) is None and not has_changed(7, [1, 2, "x", 3])


def test_parts_of_a_file_have_it_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    opened: list[str] = []
    path.write_bytes(b"12345")
    read = Path.open

    def counted(file: Path, mode: str) -> Any:
        opened.append(mode)
        return read(file, mode)

    monkeypatch.setattr(Path, "open", counted)
    parts = [Segment(str(path), second, second + 1) for second in range(9)]
    known = [describe_file(part) for part in parts]
    assert len(opened) == 1 and len(set(map(str, known))) == 1
    os.utime(path, ns=(1, 1))  # a copy
    assert not any(has_changed(part, its) for part, its in zip(parts, known, strict=True) if its)
    assert len(opened) == 2
    with path.open("wb") as file:
        file.write(b"54321")
    os.utime(path, ns=(2, 2))
    assert all(has_changed(part, its) for part, its in zip(parts, known, strict=True) if its)
    assert opened == ["rb", "rb", "wb", "rb"]
