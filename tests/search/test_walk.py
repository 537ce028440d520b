"""Which sounds a folder has."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from closed_folders import open_folder_for_all, without_privileges

from atr_moco_plugin.search.walk import Found, Notes, walk_tree

SUFFIXES = frozenset({".wav", ".flac"})


def walked(root: Path, notes: Notes | None = None) -> list[str]:
    """Names below ``root``, with members of tars."""
    root = root.resolve()
    found = walk_tree(str(root), SUFFIXES, notes or Notes())
    return [os.path.relpath(x.path, root) + (f"/{x.member}" if x.member else "") for x in found]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_tree_comes_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/10.WAV", "a.flac", "b.wav", "c/d/e/f.wav", "-rf.wav"):
        touch(tmp_path / name)
    names = ["-rf.wav", "a.flac", "b/10.WAV", "b/2.wav", "b.wav", "c/d/e/f.wav"]
    assert walked(tmp_path) == names


def test_what_is_hidden_or_no_sound_is_passed_over_and_counted(tmp_path: Path) -> None:
    for name in (".a.wav", ".git/a.wav", "a.txt", "b.txt", "noise", "a.wav"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.wav")  # to read it would wait forever
    notes = Notes()
    assert walked(tmp_path, notes) == ["a.wav"]
    assert notes.other == {".txt": 2, "": 1}
    assert notes.problems == [(str(tmp_path / "pipe.wav"), "is no file")]


@pytest.mark.parametrize(
    "name", ["line\nbreak.wav", "\U0001f600.wav", os.fsdecode(b"\xff\xfe.wav")]
)
def test_names_may_be_anything(tmp_path: Path, name: bytes) -> None:
    touch(tmp_path / os.fsdecode(name))
    assert walked(tmp_path) == [os.fsdecode(name)]


def test_each_file_comes_once_whatever_links_there_are(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root / "z/real.wav")
    touch(outside / "x/far.wav")
    touch(outside / "alone.wav")
    (root / "a.wav").symlink_to(root / "z/real.wav")
    (root / "b").symlink_to(root / "z")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "z/again").symlink_to("..")
    (root / "far").symlink_to(outside / "x")
    (root / "far2").symlink_to(outside / "x")
    (root / "l1.wav").symlink_to(outside / "alone.wav")
    (root / "l2.wav").symlink_to(outside / "alone.wav")
    (root / "dead.wav").symlink_to("nowhere.wav")
    (root / "self.wav").symlink_to("self.wav")
    notes = Notes()
    assert walked(root, notes) == ["z/real.wav", "far/far.wav", "l1.wav"]
    assert [Path(name).name for name, _ in notes.problems] == ["dead.wav", "self.wav"]


def test_a_link_gives_a_file_a_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "content.bin")
    (tmp_path / "sound.wav").symlink_to("content.bin")
    assert walked(tmp_path) == ["sound.wav"]


def test_of_links_to_one_file_the_first_that_is_called_a_sound_counts(tmp_path: Path) -> None:
    """As those into a store of contents are, such as git-annex's or the Hub's."""
    blob = touch(tmp_path / "blobs/0123")
    for name in ("a.txt", "b.wav", "c.wav", "d.txt"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(blob)
    notes = Notes()
    assert walked(tmp_path / "root", notes) == ["b.wav"]
    assert notes.other == {".txt": 1}  # the content of the other one was met before


def test_a_folder_that_may_not_be_read_is_named() -> None:
    with open_folder_for_all() as root:
        touch(root / "a.wav")
        closed = touch(root / "closed/b.wav").parent
        closed.chmod(0)
        notes = Notes()
        with without_privileges():
            assert walked(root, notes) == ["a.wav"]
        closed.chmod(0o700)
    assert notes.problems == [(str(closed), "cannot be read (Permission denied)")]


def test_a_tar_is_a_folder_in_its_place(tmp_path: Path) -> None:
    for name in ("a.wav", "c.wav", "in/x.wav", "in/y.wav", "in/y.json"):
        touch(tmp_path / name)
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in ("in/y.wav", "in/x.wav", "in/y.json", "in/y.wav"):
            tar.add(tmp_path / name, name)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    notes = Notes()
    assert walked(tmp_path, notes) == ["a.wav", "b.tar/in/y.wav", "b.tar/in/x.wav", "c.wav"]
    assert notes.other == {".json": 1}
    assert notes.problems == [
        (str(tmp_path / "b.tar"), "1 members have the name of an earlier one")
    ]


def test_a_damaged_tar_is_named_and_gives_what_comes_before(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path / "a.wav", "1.wav")
        tar.add(tmp_path / "a.wav", "2.wav")
    content = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(content[:1024] + b"?" * 512)
    notes = Notes()
    assert walked(tmp_path, notes) == ["a.wav", "b.tar/1.wav"]
    assert "breaks off" in notes.problems[0][1]


def test_a_found_sound_says_how_it_is_read(tmp_path: Path) -> None:
    assert Found("/a.wav", "", 1, 1).source == "/a.wav"
    assert str(Found("/a.wav", "#t=1.5,3", 1, 1).source) == "/a.wav from 1.5 s to 3 s"
    assert str(Found("/a.tar", "x.wav", 1, 1, 512).source) == "/a.tar, member x.wav"
