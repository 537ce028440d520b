from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from closed_folders import open_folder_for_all, without_privileges
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder, list_files
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.opening.renamed_files import match_renamed
from atr_moco_plugin.data.tables.file_names import stem_of
from atr_moco_plugin.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def audio(root: Path) -> AudioFiles:
    return AudioFiles(root)


def test_list_files_follows_links_once_and_skips_hidden_ones(tmp_path: Path) -> None:
    touch(tmp_path / "a", "b/x.wav", "y.csv", "._y.csv", ".git/z")
    touch(tmp_path / "other", "v.wav")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "a" / "b" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "gone")
    assert list_files(tmp_path / "a") == ["b/x.wav", "link/v.wav", "nowhere", "y.csv"]
    assert list_files(tmp_path / "a" / "y.csv") == ["y.csv"]
    assert list_files(tmp_path / "missing") == []


def test_a_folder_that_may_not_be_read_is_named() -> None:
    """It ended in a traceback."""
    with open_folder_for_all() as root:
        (root / "a.wav").touch()
        closed = root / "closed"
        closed.mkdir(mode=0)
        said = "closed: the folder cannot be listed .Permission denied.: "
        with without_privileges(), pytest.warns(UserWarning, match=f"{said}what is in it is left"):
            assert list_files(root) == ["a.wav"]
        with without_privileges(), pytest.raises(InputError, match=f"{said}allow this user"):
            list_files(closed)
        closed.chmod(0o700)


def test_a_folder_is_described(tmp_path: Path) -> None:
    assert describe_folder(tmp_path / "x") == "there is no such folder"
    assert describe_folder(tmp_path) == "found an empty folder"
    touch(tmp_path, "b.csv", "a/x.wav")
    assert describe_folder(tmp_path) == "found a/, b.csv"
    assert describe_folder(tmp_path / "b.csv") == "found a file"
    touch(tmp_path, *(f"{number:02d}.wav" for number in range(20)))
    assert describe_folder(tmp_path).endswith("07.wav, ... (22 in all)")


def test_find_takes_the_split_then_no_split_then_others(tmp_path: Path) -> None:
    touch(tmp_path, "waveforms/test/Ya.wav", "waveforms/train/Ya.wav", "all/Ya.wav", "val/Yb.flac")
    files = audio(tmp_path)
    assert files.find(["Ya"], "test", other_splits=False) == "waveforms/test/Ya.wav"
    assert files.find(["Ya"], "train", other_splits=False) == "waveforms/train/Ya.wav"
    assert files.find(["Ya"], "valid", other_splits=False) == "all/Ya.wav"
    assert files.find(["Yb"], "test", other_splits=False) is None
    assert files.find(["Yb"], "test", other_splits=True) == "val/Yb.flac"
    assert files.find(["Yc", "Yb"], "valid", other_splits=False) == "val/Yb.flac"


def test_find_by_name_stem_and_path(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.flac", "one/a.wav", "two/a.wav", "two/b.c.ogg", "two/notes.txt")
    files = audio(tmp_path)
    assert files.find(["a"], "train", other_splits=False, copies=True) == "one/a.wav"
    assert files.find(["two/a.wav"], "train", other_splits=False) == "two/a.wav"
    assert files.find(["three/a.wav"], "train", other_splits=False, copies=True) == "one/a.wav"
    for name in ("a", "three/a.wav"):
        with pytest.raises(ValueError, match=f"{name!r} may be one/a.wav or two/a.wav; give its"):
            files.find([name], "train", other_splits=False)
    assert files.find(["b.c"], "train", other_splits=False) == "two/b.c.ogg"
    assert files.find(["b.c.m4a"], "train", other_splits=False) == "two/b.c.ogg"
    assert files.find(["b"], "train", other_splits=False) is None
    assert files.find(["notes.txt"], "train", other_splits=False) is None


def test_stem_of_takes_only_media_suffixes() -> None:
    assert stem_of("a/b/FR.CTC.001.wav") == "FR.CTC.001"
    assert stem_of("FR.CTC.001") == "FR.CTC.001"
    assert stem_of("C:\\x\\clip.MP3") == "clip"


def test_lookup_finds_files_and_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.wav", "a/x.flac", "a/y.ogg", "a/z/w.wav")
    asked = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: asked.append(place) or real(place))
    lookup = FileLookup()
    folder = str(tmp_path / "a")
    assert lookup.find(f"{folder}/x.flac") == f"{folder}/x.flac"
    assert lookup.find(f"{folder}/x") == f"{folder}/x.wav"
    assert lookup.find(f"{folder}/y") == f"{folder}/y.ogg"
    assert lookup.find(f"{folder}/z") is None
    assert lookup.find(f"{folder}/none.wav") is None
    assert asked == [folder]
    assert lookup.find(f"{tmp_path}/nowhere/x.wav") is None
    assert lookup.find(f"{folder}/x.wav/y.wav") is None


# How download tools change a name; the last two leave a trace of &#39;.
RENAMES: list[Callable[[str], str]] = [
    lambda stem: stem.replace("&#39;", "'"),
    lambda stem: stem.replace("&#39;", "'").strip(),
    lambda stem: re.sub(r"[^\w.-]", "_", stem.replace("&#39;", "'")),
    lambda stem: re.sub(r"[^\w]+", "-", stem.replace("&#39;", "'")).lower(),
    lambda stem: re.sub(r"[^\w]", "", stem.replace("&#39;", "'")),
    lambda stem: re.sub(r"[^\w]", "_", stem),
    lambda stem: stem.replace("&", "&amp;"),
]
NAMES = [
    "Scops owl&#39;s call in night silence.wav",
    "Street Ambient (Spain) .wav",
    "VCR,rewind,opendoor.wav",
    "Jesus! Hellbound I go but I&#39;m coming back!.wav",
    "Unseathing &amp; Wobble.wav",
    "WS_20122 [8.3.09] nr drips mono uprocessed.wav",
]


@pytest.mark.parametrize("rename", RENAMES)
def test_changed_names_are_paired(rename: Callable[[str], str]) -> None:
    files = [f"evaluation/{rename(name[:-4])}.wav" for name in NAMES]
    assert match_renamed(NAMES, files[::-1]) == dict(zip(NAMES, files, strict=True))


def test_what_is_ambiguous_is_not_paired() -> None:
    assert match_renamed(["fountain.wav", "Fountain .wav"], ["Fountain_.wav"]) == {}
    assert match_renamed(["Car wash.wav"], ["CarWash.wav", "car_wash_.wav", "carwash.wav"]) == {
        "Car wash.wav": "car_wash_.wav"
    }
    assert match_renamed(["Rain drops.wav"], ["raindrops.wav", "RAINDROPS.wav"]) == {}
    # Its two readings fit two files.
    assert match_renamed(["a&#39;s.wav"], ["a_s.wav", "a_39_s.wav"]) == {}
    assert match_renamed(["!!!.wav"], ["???.wav"]) == {}


def test_the_finer_form_tells_apart_what_the_coarser_cannot() -> None:
    wanted = ["Rain drops.wav", "Raindrops.wav"]
    files = ["rain_drops.wav", "raindrops.wav"]
    assert match_renamed(wanted, files) == dict(zip(wanted, files, strict=True))


@given(
    st.lists(st.text("aAbB _.,'&#39;", min_size=1, max_size=5), max_size=6, unique=True),
    st.lists(st.text("aAbB _.,'&#39;", min_size=1, max_size=5), max_size=6, unique=True),
)
def test_pairs_are_one_to_one_and_do_not_depend_on_the_order(
    names: list[str], files: list[str]
) -> None:
    pairs = match_renamed(names, files)
    assert set(pairs) <= set(names) and set(pairs.values()) <= set(files)
    assert len(set(pairs.values())) == len(pairs)
    assert match_renamed(names[::-1], files[::-1]) == pairs
