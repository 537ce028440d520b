"""Captions files, manifests and shards of any content: a data set opens, or one sentence names the
file."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atr_moco_plugin.data.audio.cache import read_entry
from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.duplicates import file_identity
from atr_moco_plugin.data.opening.headers import read_headers
from atr_moco_plugin.data.sets.registry import DATASETS
from atr_moco_plugin.errors import InputError, MissingFileError

FUZZ = settings.get_profile("fuzz")

COLUMNS = [
    "file_name", "audio", "wav", "youtube_id",
    "caption", "captions", "caption_1", "caption_2", "caption.1", "Caption 2", "caption_x",
    "text", "id", "clip_id", "split", "start_time", "audiocap_id", "", "x",
    "start", "end", "onset", "offset", "duration", "source",
]  # fmt: skip
AUDIO = [
    "a.wav", "b.flac", "sub/c.wav", "abcdefghijk", "broken.wav", "gone.wav",
    "./a.wav", "sub/../a.wav", "c.wav", "link.wav", "copy.wav", "abcdefghijk_30.wav",
]  # fmt: skip
SECONDS = ["0", "0.05", "0.2", "0.25", "30", "1e300", "0:30", ""]
PATHS = [
    "sub\\c.wav",
    " a.wav ",
    "a.WAV",
    "a.mp3",
    "file:///a.wav",
    "file://[",
    "~/a.wav",
    "$X/a.wav",
    "../a.wav",
    "/dev/zero",
    ".",
    "..",
    "/",
    "x" * 300 + ".wav",
    "a/" * 3_000,
    "",
]
CAPTIONS = [
    "\ufe0f",
    "\u0301",
    "\U0001f415",
    'a "dog"',
    '"',
    "a dog barks",
    "rain",
    "ÄÖ",
    "…",
    "",
    "['a dog' 'a cat']",
    '["x", "y"]',
    "[" * 3_000,
]
SPLITS = ["train", "val", "test", "evaluation", "other", ""]

odd = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="\"',;\n\r\t[]{}\\\ufeff\u202e é1", max_size=12),
    st.sampled_from(PATHS + CAPTIONS + ["nan", "1e999", "-1"]),
)
json_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        odd,
        st.sampled_from([*AUDIO, "\ud800", "dog \ud800", 10**400]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from([*COLUMNS, "data"]), inner, max_size=5),
    ),
    max_leaves=10,
)
any_bytes = st.binary(max_size=60)


def mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """The usual in most cases, so that files get as far as being used."""
    return st.integers(0, 9).flatmap(lambda drawn: usual if drawn else other)


def often(usual: list[str]) -> Any:
    return mostly(st.sampled_from(usual), odd)


VALUES = {
    "file_name": often(AUDIO), "audio": often(AUDIO), "wav": often(AUDIO),
    "youtube_id": often(["abcdefghijk", "lmnopqrstuv"]), "split": often(SPLITS),
    "caption": often(CAPTIONS), "captions": often(CAPTIONS), "text": often(CAPTIONS),
    "start_time": often(["0", "30", "1.5"]), "fold": often(["1", "4"]),
    "filename": often(AUDIO), "category": often(["dog", "rain"]), "src_file": often(["1", "2"]),
    "bench_split": often(["train", "test"]), "clip_id": often(["1", "2", ""]),
    "id": often(["1", "2", ""]), "source": often(["sub", "other", ""]),
    **{name: often(SECONDS) for name in ("start", "end", "onset", "offset", "duration")},
}  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Mostly as it is, else cut off, with bytes changed or put in, or twice."""
    data = draw(contents)
    how = draw(mostly(st.just("whole"), st.sampled_from(["cut", "flip", "insert", "twice"])))
    if not data or how == "whole":
        return data
    at = draw(st.integers(0, len(data) - 1))
    if how == "cut":
        return data[:at]
    if how == "flip":
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    if how == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at:]
    return data + data


@st.composite
def csv_table(draw: st.DrawFn, needed: tuple[str, ...]) -> bytes:
    """A table with the needed columns in most cases, in any encoding, dialect and line end."""
    more = draw(st.lists(st.sampled_from(COLUMNS), max_size=3))
    columns = [*needed, *more] if draw(st.integers(0, 9)) else more
    row = st.tuples(*(VALUES.get(name, odd) for name in columns))
    rows: list[Any] = draw(st.lists(row, min_size=1, max_size=5))
    if draw(st.integers(0, 9)) == 0:
        rows.append(draw(st.lists(odd, max_size=8)))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=draw(mostly(st.just(","), st.sampled_from("\t;|"))),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        escapechar="\\",
    )
    writer.writerows([columns, *rows])
    encodings = st.sampled_from(["utf-8-sig", "cp1252", "latin-1", "utf-16"])
    encoding = draw(mostly(st.just("utf-8"), encodings))
    return text.getvalue().encode(encoding, "replace")


json_row = mostly(
    st.fixed_dictionaries(
        {
            "id": mostly(st.sampled_from(AUDIO), json_value),
            "audio": mostly(st.sampled_from(AUDIO), json_value),
            "captions": st.one_of(often(CAPTIONS), st.lists(often(CAPTIONS)), json_value),
        },
        optional={
            "split": often(SPLITS),
            "youtube_id": json_value,
            "start_time": json_value,
            "start": mostly(st.sampled_from([0, 0.05, "0"]), json_value),
            "end": mostly(st.sampled_from([0.2, "0.25", 9]), json_value),
            "clip_id": often(["1", "2"]),
            "source": often(["sub", "other"]),
        },
    ),
    json_value,
)
json_rows = st.lists(json_row, min_size=1, max_size=5)


def json_lines(rows: list[Any]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little audio under the names that the cases use."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "sub").mkdir()
    for seed, name in enumerate(("a.wav", "b.flac", "sub/c.wav", "Yabcdefghijk.wav")):
        wave = np.random.default_rng(seed).uniform(-0.1, 0.1, 4_000)
        soundfile.write(root / name, wave, 16_000)
    (root / "link.wav").symlink_to("a.wav")
    (root / "copy.wav").write_bytes((root / "a.wav").read_bytes())
    (root / "broken.wav").write_bytes(b"RIFF....")
    return root


def no_audio_twice(dataset: AudioTextDataset) -> None:
    """No piece of audio is two clips, and no file is in two splits."""
    found: set[object] = set()
    splits: dict[object, str] = {}
    for split, clips in dataset.splits.items():
        for source in (clip.source for clip in clips):
            file = file_identity(source)
            part = (source.start, source.end) if isinstance(source, Segment) else None
            assert (file, part) not in found and splits.setdefault(file, split) == split
            found.add((file, part))


def opens(attempt: Callable[..., Any], family: str, root: Path, **options: Any) -> None:
    """Open a data set and use all of it, but for the audio."""
    config_class, opener = DATASETS[family]

    def use() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = opener(config_class(root=root, **options))
        dataset.summary()
        dataset.fingerprint()
        no_audio_twice(dataset)
        for split in dataset.splits:
            dataset.retrieval_set(split)
            for clip in dataset.clips(split):
                dataset.clip_id(clip)
                " ".join(clip.captions).encode()  # a tokenizer takes nothing else

    attempt(use, (InputError, MissingFileError), str(root), f"{family}: ")


NEEDED = ("file_name", "caption")


@FUZZ
@given(mostly(damaged(csv_table(NEEDED)), any_bytes), st.just(".csv"))
@example(b"file_name\tcaption\na.wav\tdog\n", ".tsv")
@example(b"file_name,caption\na\0.wav,x\n", ".csv")
@example(b"", ".csv")
def test_manifests_in_csv(folder: Path, attempt: Any, content: bytes, suffix: str) -> None:
    path = folder / f"manifest{suffix}"
    path.write_bytes(content)
    opens(attempt, "manifest", path)


@FUZZ
@given(mostly(damaged(json_rows.map(json_lines)), any_bytes))
@example(b'{"audio": "a\\u0000.wav", "captions": ["dog"]}')
@example(b'{"audio": "\\ud800.wav", "captions": ["dog"]}')
@example(b'{"audio": "a.wav", "captions": ["dog \\ud800"]}')
@example(b'{"audio": "a.wav", "captions": ' + b"[" * 5_000 + b"]" * 5_000 + b"}")
@example(b'{"audio": "a.wav", "captions": ' + b"[" * 400 + b'"dog"' + b"]" * 400 + b"}")
@example(b'{"audio": "a.wav", "captions": "' + b"[" * 5_000 + b']"}')
@example(b'{"audio": "' + b"x" * 300 + b'/a.wav", "captions": "dog"}')
def test_manifests_in_json_lines(folder: Path, attempt: Any, content: bytes) -> None:
    path = folder / "manifest.jsonl"
    path.write_bytes(content)
    opens(attempt, "manifest", path)


@FUZZ
@given(
    mostly(
        damaged(json_rows.map(lambda rows: as_json({"data": rows}))),
        st.one_of(damaged(json_value.map(as_json)), any_bytes),
    )
)
@example(b"[" * 5_000)
@example(b'{"data": ' + b"1" * 5_000 + b"}")
def test_wavcaps(folder: Path, attempt: Any, content: bytes) -> None:
    path = folder / "wavcaps.json"
    path.write_bytes(content)
    opens(attempt, "wavcaps", path)


@FUZZ
@given(
    st.one_of(
        damaged(csv_table(("youtube_id", "start_time", "caption"))),
        damaged(csv_table(("file_name", "caption_1", "caption_2"))),
        damaged(json_rows.map(json_lines)),
        any_bytes,
    ),
    st.sampled_from(["audiocaps", "clotho"]),
    st.sampled_from(["train.csv", "val.tsv", "test.jsonl"]),
)
def test_folders_with_captions(
    folder: Path, attempt: Any, content: bytes, family: str, name: str
) -> None:
    path = folder / "captions" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        opens(attempt, family, folder, captions=path.parent)
    finally:
        path.unlink()


@FUZZ
@given(
    st.one_of(
        damaged(csv_table(NEEDED)),
        damaged(csv_table(("filename", "category", "src_file"))),
        damaged(json_rows.map(json_lines)),
        any_bytes,
    ),
    st.sampled_from(["list.csv", "train.tsv", "test.jsonl", "captions.json"]),
)
@example(b"filename,category\na.wav,1\n", "list.csv")
@example(b"filename,category\n../a.wav,dog\n", "list.csv")
def test_folders_of_sounds(folder: Path, attempt: Any, content: bytes, name: str) -> None:
    path = folder / name
    path.write_bytes(content)
    try:
        opens(attempt, "folder", folder)
    finally:
        path.unlink()


@FUZZ
@given(
    mostly(damaged(csv_table(("filename", "fold", "category", "src_file"))), any_bytes),
    mostly(
        st.none(),
        st.one_of(
            json_value.map(as_json),
            st.dictionaries(st.sampled_from(["dog", "rain"]), json_value).map(as_json),
            any_bytes,
        ),
    ),
)
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n", b"{")
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n", b"[]")
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n", b"\xff")
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n", b'{"dog": [1]}')
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n", b'{"dog": ["..."]}')
@example(b"filename,fold,category,src_file\na.wav,4,dog\n", None)
@example(b"filename,fold,category,src_file\na.wav,4\n\0,4,dog,1\n", None)
@example(b'filename,fold,category,src_file\n"' + b"a" * 200_000, None)
@example(b'filename,fold,category,src_file\n"0\n1",4,dog,0\n', None)
@example(b"filename,fold,category,src_file\na.wav,4,dog,1\n" + b"x" * 300 + b",4,dog,1\n", None)
def test_esc50(folder: Path, attempt: Any, content: bytes, phrases: bytes | None) -> None:
    root = folder / "esc50"
    (root / "audio").mkdir(parents=True, exist_ok=True)
    (root / "audio" / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    (root / "esc50_16k.csv").write_bytes(content)
    (root / "class_phrases.json").unlink(missing_ok=True)
    if phrases is not None:
        (root / "class_phrases.json").write_bytes(phrases)
    opens(attempt, "esc50", root)


@st.composite
def tar(draw: st.DrawFn) -> bytes:
    """A shard with one good clip and anything else, with bytes changed or cut off."""
    name = st.one_of(
        st.sampled_from(["b.flac", "b.json", "../b.flac", "/b.json", "./b.FLAC", "d/b.json"]),
        st.text(max_size=8).filter(lambda text: "\0" not in text),
    )
    content = st.one_of(json_value.map(lambda text: as_json({"text": text})), any_bytes)
    more = draw(st.lists(st.tuples(name, content), max_size=4))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", errors="surrogatepass") as archive:
        for path, data in [("a.flac", b"fLaC"), ("a.json", b'{"text": "a dog"}'), *more]:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = bytearray(file.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        block = draw(st.integers(0, len(data) // 512 - 1))
        data[512 * block + draw(st.integers(0, 511))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@FUZZ
@given(
    mostly(tar(), any_bytes),
    mostly(
        st.none(),
        st.one_of(
            json_value.map(as_json),
            st.dictionaries(st.sampled_from(["0.tar", "1.tar", "", "..", "\0"]), json_value).map(
                as_json
            ),
            any_bytes,
        ),
    ),
)
@example(b"", b'{"0.tar": Infinity}')
@example(b"", b'{"0.tar": ' + b"1" * 5_000 + b"}")
def test_shards(folder: Path, attempt: Any, content: bytes, sizes: bytes | None) -> None:
    root = folder / "shards"
    root.mkdir(exist_ok=True)
    (root / "0.tar").write_bytes(content)
    (root / "sizes.json").unlink(missing_ok=True)
    if sizes is not None:
        (root / "sizes.json").write_bytes(sizes)
    opens(attempt, "webdataset", root)


def audio_file(suffix: str, subtype: str) -> bytes:
    file = io.BytesIO()
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, (6_000, 2))
    soundfile.write(file, wave, 22_050, subtype, format=suffix)
    return file.getvalue()


SOUNDS = {
    (suffix, subtype): audio_file(suffix, subtype)
    for suffix, subtype in (
        ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
        ("AIFF", "PCM_24"), ("AU", "ULAW"), ("W64", "PCM_16"), ("CAF", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
    )
}  # fmt: skip


@st.composite
def damaged_sound(draw: st.DrawFn) -> bytes:
    """A sound file with a few bytes changed, most of them in its header, or cut off."""
    data = bytearray(SOUNDS[draw(st.sampled_from(sorted(SOUNDS)))])
    for _ in range(draw(st.integers(1, 4))):
        last = draw(st.sampled_from([60, 60, 200, len(data) - 1]))
        data[draw(st.integers(0, min(last, len(data) - 1)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@FUZZ
@given(
    damaged_sound(),
    st.sampled_from([None, 2_800, 16_000]),
    st.sampled_from([8_000, 16_000, 22_051, 32_000, 44_100, 48_000]),
)
def test_sounds(
    folder: Path, attempt: Any, content: bytes, samples: int | None, sample_rate: int
) -> None:
    path = folder / "sound.wav"
    path.write_bytes(content)
    ((seconds, rate, problem),) = read_headers([str(path)])
    assert problem or (0.1 < seconds and rate >= 1_000)
    waveform = attempt(lambda: read_audio(path, sample_rate, samples), (InputError,), str(path))
    if waveform is not None:
        assert np.isfinite(waveform).all() and waveform.dtype == np.float32
        assert samples is None or len(waveform) <= samples
        if samples is None:  # what can be read whole can be read wherever a crop falls
            for seed in range(3):
                drawn = torch.Generator().manual_seed(seed)
                assert len(read_audio(path, sample_rate, 2_000, drawn)) <= 2_000


@FUZZ
@given(st.binary(max_size=100), st.integers(0, 160), st.booleans())
@example(b"PK\x03\x04", 0, True)
@example(b"\x80\x04]", 0, True)
@example(b"\x93NUMPY\x01\x00\xff\xff", 0, True)
def test_entries_of_the_cache(folder: Path, some: bytes, at: int, cut: bool) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(20, dtype=np.int16))
    data = file.getvalue()
    path = folder / "entry.npy"
    path.write_bytes(data[:at] + some + (b"" if cut else data[at + len(some) :]))
    entry = read_entry(path)  # damaged ones are made anew: no error at all
    assert entry is None or entry.ndim == 1
