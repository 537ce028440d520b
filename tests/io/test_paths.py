from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from atr_moco_plugin.data.opening.audio_files import AudioFiles
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.paths import expanded, spellings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUDIO", str(tmp_path / "audio"))
    monkeypatch.delenv("NOT_SET", raising=False)
    return tmp_path


def test_options_expand_the_home_folder_and_variables(home: Path) -> None:
    assert expanded("~/cache", "x") == expanded("$HOME/cache", "x") == home / "cache"
    assert expanded("${AUDIO}/a", "x") == home / "audio" / "a"
    assert expanded("a/~/b", "x") == Path("a/~/b")
    with pytest.raises(InputError, match=r"`root` is '\$NOT_SET/a', .* variable \$NOT_SET is not"):
        expanded("$NOT_SET/a", "root")
    with pytest.raises(InputError, match="`root` is '~no_such_user/a', but there is no home"):
        expanded("~no_such_user/a", "root")
    (home / "a$NOT_SET").mkdir()
    assert expanded(home / "a$NOT_SET", "x") == home / "a$NOT_SET"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sub\\a.wav", "sub/a.wav"),
        (" a.wav\t", "a.wav"),
        ("a.wav", "a.WAV"),
        ("a.WAV", "a.wav"),
        ("a.wav", "a.flac"),
        ("sub\\a.wav ", "sub/a.flac"),
        ("file:///{root}/b%20c.wav", "b c.wav"),
        ("~/audio/a.wav", "a.wav"),
        ("$AUDIO/a.wav", "a.wav"),
        (
            unicodedata.normalize("NFC", "caf\u00e9.wav"),
            unicodedata.normalize("NFD", "caf\u00e9.wav"),
        ),
        (
            unicodedata.normalize("NFD", "d\u00e9/a.wav"),
            unicodedata.normalize("NFC", "d\u00e9/a.wav"),
        ),
    ],
)
def test_names_are_matched_where_that_is_unambiguous(home: Path, name: str, file: str) -> None:
    path = home / "audio" / file
    path.parent.mkdir(parents=True)
    path.touch()
    folder = home / "audio"
    name = name.replace("{root}", str(folder).lstrip("/"))
    assert FileLookup().find_spelling(str(folder), name) is not None
    assert Path(FileLookup().find_spelling(str(folder), name)).samefile(path)
    assert AudioFiles(folder).candidates(name) == [file]


def test_a_name_that_fits_two_files_is_nobodys(home: Path) -> None:
    for file in ("a.flac", "a.mp3", "b.WAV", "b.Wav", "c.wav", "c.flac"):
        (home / file).touch()
    lookup = FileLookup()
    for name in ("a.wav", "b.wav", "d.wav", "C.wav"):
        assert lookup.find_spelling(str(home), name) is None, name
    assert lookup.find_spelling(str(home), "c.wav") == str(home / "c.wav")
    assert lookup.find_spelling(str(home), "a") == str(home / "a.flac")


def test_spellings_of_a_plain_name_are_one() -> None:
    assert list(spellings("sub/a.wav")) == ["sub/a.wav"]
    assert list(spellings("file://[x")) == ["file://[x"]
