from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.clotho import ClothoConfig, open_clotho, read_clotho_captions

READER = AudioReader(16_000)

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "captions" / "clotho"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real captions are not beside the repo")

COLUMNS = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
DISK = {"train": "development", "valid": "validation", "test": "evaluation"}
NAMES = {
    "train": ("Distorted AM Radio noise.wav", "FREEZER_DOOR_OPEN_CLOSE.wav", " Ambience Birds.wav"),
    "valid": ("FR.CTC.08.CoyuyoS.001.wav", "Bus(Drive_Reverse)_1-2.wav"),
    "test": (
        "Scops owl&#39;s call in night silence.wav",
        "Street Ambient (Spain) .wav",
        "VCR,rewind,opendoor.wav",
        "Unseathing &amp; Wobble.wav",
        "FREEZER_DOOR_OPEN_CLOSE.wav",  # in train as well: another recording of that title
        "fountain.wav",
        "Fountain .wav",
    ),
}


def row(split: str, name: str) -> tuple[str, ...]:
    return (name, *(f"Caption {number}, of {name} in {split}" for number in range(5)))


LAYOUTS = {
    # captions file and audio folder of a split
    "official": ("clotho_captions_{disk}.csv", "{disk}"),
    "aac-datasets": (
        "clotho_csv_files/clotho_captions_{disk}.csv",
        "clotho_audio_files/{disk}",
    ),
    "archives": ("clotho_captions_{disk}.csv", "clotho_audio_{disk}"),
    "waveforms": ("csv_files/{short}.csv", "waveforms/{short}"),
}


@pytest.fixture
def build(
    write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> Callable[..., None]:
    def build(
        root: Path, layout: str = "official", rename: Callable[[str], str] = lambda name: name
    ) -> None:
        table, folder = LAYOUTS[layout]
        for split, names in NAMES.items():
            words = {"disk": DISK[split], "short": "val" if split == "valid" else split}
            write_table(root / table.format(**words), COLUMNS, [row(split, n) for n in names])
            for name in names:
                write_audio(root / folder.format(**words) / rename(name))

    return build


def assert_whole(data: AudioTextDataset) -> None:
    assert list(data.splits) == ["train", "valid", "test"]
    for split, names in NAMES.items():
        assert [clip.key for clip in data.clips(split)] == [
            f"{split}/{html.unescape(name)[:-4]}" for name in names
        ]
        assert [clip.captions for clip in data.clips(split)] == [
            row(split, name)[1:] for name in names
        ]
        folders = {Path(clip.source).parent.name for clip in data.clips(split)}
        assert len(folders) == 1
        assert len({clip.source for clip in data.clips(split)}) == len(names)
    assert data.missing == 0
    assert data.read_with(READER).load(data.clips("test")[0]).shape == (4800,)


@pytest.mark.parametrize("folder", ["", "development/"])
def test_a_file_that_is_missing_is_not_that_of_another_folder(
    tmp_path: Path,
    write_audio: Callable[..., Path],
    write_table: Callable[..., Path],
    folder: str,
) -> None:
    names = ("dogs/001.wav", "x/002.wav", "y/003.wav", "dogs/004.wav", "Old owls/&#39;5.wav")
    write_table(tmp_path / "development.csv", COLUMNS, [row("train", name) for name in names])
    for name in ("cats/001.wav", "x/002.wav", "004.wav", "Old owls/5.wav"):
        write_audio(tmp_path / "audio" / folder / name)
    with pytest.warns(UserWarning, match="2 clips are without audio"):
        data = open_clotho(ClothoConfig(tmp_path))
    found = {Path(clip.source).relative_to(tmp_path / "audio") for clip in data.clips("train")}
    kept = ("x/002.wav", "004.wav", "Old owls/5.wav")
    assert found == {Path(folder, name) for name in kept}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, build: Callable[..., None], layout: str) -> None:
    build(tmp_path, layout)
    # The official metadata files name splits too, and have no captions.
    metadata = tmp_path / "clotho_metadata_development.csv"
    metadata.write_bytes("file_name,keywords\na.wav,caf\u00e9\n".encode("latin-1"))
    assert_whole(open_clotho(ClothoConfig(tmp_path, strict=True)))


@pytest.mark.parametrize(
    "rename",
    [
        html.unescape,
        lambda name: html.escape(html.unescape(name)),
        lambda name: re.sub(r"[^\w.-]", "_", html.unescape(name)),
        lambda name: name.replace(".wav", ".flac"),
        lambda name: re.sub(r"[&#;,()]", "_", name),
    ],
)
def test_renamed_files(
    tmp_path: Path, build: Callable[..., None], rename: Callable[[str], str]
) -> None:
    build(tmp_path, rename=rename)
    data = open_clotho(ClothoConfig(tmp_path, strict=True))
    assert_whole(data)
    for split, names in NAMES.items():
        assert [Path(clip.source).name for clip in data.clips(split)] == list(map(rename, names))


def test_names_do_not_depend_on_how_the_captions_write_entities(
    tmp_path: Path, build: Callable[..., None]
) -> None:
    build(tmp_path)
    before = open_clotho(ClothoConfig(tmp_path))
    path = tmp_path / "clotho_captions_evaluation.csv"
    texts = path.read_text().splitlines(keepends=True)
    path.write_text("".join(html.unescape(t.split(",")[0]) + t[t.index(",") :] for t in texts))
    after = open_clotho(ClothoConfig(tmp_path, strict=True))
    assert [c.key for c in after.clips("test")] == [c.key for c in before.clips("test")]


def test_audio_of_another_split_is_not_taken(tmp_path: Path, build: Callable[..., None]) -> None:
    build(tmp_path)
    (tmp_path / "evaluation" / "FREEZER_DOOR_OPEN_CLOSE.wav").unlink()
    data = open_clotho(ClothoConfig(tmp_path))
    assert data.counts["test"].missing == data.missing == 1
    assert len(data.clips("train")) == 3


def test_one_file_for_two_recordings_is_nobodys(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    """All audio in one folder: the title that two splits have is there once."""
    for split, names in NAMES.items():
        write_table(tmp_path / f"{split}.csv", COLUMNS, [row(split, name) for name in names])
        for name in names:
            write_audio(tmp_path / "audio" / name)
    data = open_clotho(ClothoConfig(tmp_path))
    assert data.counts["train"].missing == data.counts["test"].missing == 1
    assert not [c for clips in data.splits.values() for c in clips if "FREEZER" in c.key]


def test_a_missing_clip_does_not_take_the_file_of_a_similar_one(
    tmp_path: Path, build: Callable[..., None]
) -> None:
    build(tmp_path)
    (tmp_path / "evaluation" / "Fountain .wav").unlink()
    data = open_clotho(ClothoConfig(tmp_path))
    keys = [clip.key for clip in data.clips("test")]
    assert "test/fountain" in keys and "test/Fountain " not in keys


def test_errors(tmp_path: Path, build: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="Clotho needs its folder"):
        open_clotho(ClothoConfig())
    with pytest.raises(FileNotFoundError, match="Clotho captions: looked for .* an empty folder"):
        open_clotho(ClothoConfig(tmp_path))
    build(tmp_path)
    path = tmp_path / "clotho_captions_evaluation.csv"
    path.write_text(path.read_text() + '"",a,b,c,d,e\n')
    with pytest.raises(ValueError, match="row 8 has nothing in column 'file_name'"):
        open_clotho(ClothoConfig(tmp_path))


@real
def test_the_real_captions() -> None:
    tables = read_clotho_captions(REAL)
    sizes = {split: len(table.recordings) for split, table in tables.items()}
    assert sizes == {"train": 3_839, "valid": 1_045, "test": 1_045}
    items = [item for table in tables.values() for item in table.recordings.values()]
    assert {len(item.captions) for item in items} == {5}
    assert not any(
        table.repeated_rows or table.empty_captions or table.without_caption
        for table in tables.values()
    )
    assert max(len(text.split()) for item in items for text in item.captions) == 21
    test_names = [item.names[0] for item in tables["test"].recordings.values()]
    assert sum(bool(re.search("[,()]|&.*;", name)) for name in test_names) == 65


RENAMES = {
    "unescaped": html.unescape,
    "flac": lambda name: f"{name[:-4]}.flac",
    "underscores": lambda name: re.sub(r"[^\w.-]", "_", html.unescape(name)),
    "lower case": lambda name: re.sub(r"\W", "_", html.unescape(name[:-4])).lower() + ".wav",
}


@real
@pytest.mark.parametrize("rename", RENAMES)
def test_the_real_names_on_disk(tmp_path: Path, rename: str) -> None:
    """Every real name as a file: matched to itself, or not at all where the new names collide."""
    tables = read_clotho_captions(REAL)
    wanted: dict[str, str] = {}
    for split, table in tables.items():
        (tmp_path / DISK[split]).mkdir()
        for item in table.recordings.values():
            path = tmp_path / DISK[split] / RENAMES[rename](item.names[0])
            path.touch()
            wanted[item.key] = str(path)
    data = open_clotho(ClothoConfig(REAL, audio=tmp_path, check_audio=False))
    found = {clip.key: clip.source for clips in data.splits.values() for clip in clips}
    assert all(wanted[key] == source for key, source in found.items())
    assert data.missing == len(wanted) - len(found)
    collisions = len(wanted) - len(set(wanted.values()))
    assert data.missing <= 3 * collisions
    assert (rename in ("unescaped", "flac")) == (collisions == 0)
