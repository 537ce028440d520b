"""What happens to files in the wrong state: special, vanishing, cut, lying about their size."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import struct
import tarfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.cache import read_entry
from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.bad_clips import tolerated_clips
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.opening.audio_files import describe_folder, list_files
from atr_moco_plugin.data.opening.headers import read_headers
from atr_moco_plugin.data.sets.audiocaps import AudioCapsConfig, open_audiocaps
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.tar_shards import WebdatasetConfig, open_webdataset
from atr_moco_plugin.data.tables.encoding import parse_json
from atr_moco_plugin.errors import InputError

READER = AudioReader(16_000)


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[len(item)] for item in texts])
    return ids, ids > 0


def loader(data: AudioTextDataset, **options: object) -> PairLoader:
    chosen = {"max_seconds": 0.2, "shuffle": True, "seed": 0, "drop_last": False, **options}
    return PairLoader(data, "train", tokenize, 2, **chosen)


def manifest(folder: Path, names: list[str]) -> AudioTextDataset:
    rows = [json.dumps({"audio": name, "caption": f"sound {name}"}) for name in names]
    (folder / "manifest.jsonl").write_text("\n".join(rows))
    return open_manifest(ManifestConfig(root=folder)).read_with(READER)


def special(folder: Path, kind: str) -> Path:
    """Something with the name of an audio file that is none, and that could block a reader."""
    path = folder / "x.wav"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": folder / "gone"}[kind])
    return path


KINDS = ["pipe", "folder", "device", "loop", "dangling"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_is_left_out_and_never_waited_for(
    tmp_path: Path, write_audio: Callable[..., Path], kind: str
) -> None:
    write_audio(tmp_path / "a.wav")
    special(tmp_path, kind)
    data = manifest(tmp_path, ["a.wav", "x.wav"])
    assert [clip.key for clip in data.clips("train")] == ["a.wav"] and data.missing == 1
    with pytest.raises(FileNotFoundError, match="x.wav: no such audio file"):
        read_audio(tmp_path / "x.wav", 16_000)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_in_a_folder_that_is_listed(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path], kind: str
) -> None:
    rows = [["1", "abcdefghijk", "0", "a dog"], ["2", "x", "0", "a cat"]]
    columns = ["audiocap_id", "youtube_id", "start_time", "caption"]
    write_table(tmp_path / "train.csv", columns, rows)
    write_audio(tmp_path / "train" / "abcdefghijk.wav")
    special(tmp_path / "train", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a broken file, or a missing one where it is a folder
        data = open_audiocaps(AudioCapsConfig(root=tmp_path))
    assert [clip.key for clip in data.clips("train")] == ["abcdefghijk"]
    counts = data.counts["train"]
    assert counts.missing + counts.unreadable == 1


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "dangling"])
def test_captions_that_are_no_plain_file_are_one_sentence(tmp_path: Path, kind: str) -> None:
    special(tmp_path, kind).rename(tmp_path / "train.csv")
    with pytest.raises(FileNotFoundError, match="train.csv: no such file"):
        open_audiocaps(AudioCapsConfig(root=tmp_path))
    with pytest.raises(FileNotFoundError, match="no single manifest there|no such file"):
        open_manifest(ManifestConfig(root=tmp_path / "train.csv"))


def test_a_link_to_itself_is_listed_as_a_file(tmp_path: Path) -> None:
    special(tmp_path, "loop")
    assert list_files(tmp_path) == ["x.wav"] and describe_folder(tmp_path) == "found x.wav"


def test_integers_that_were_not_scaled_are_replaced_in_training_and_stop_an_evaluation(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    names = [f"{number}.wav" for number in range(6)]
    for name in names:
        write_audio(tmp_path / name)
    wave = soundfile.read(tmp_path / "3.wav")[0]
    soundfile.write(tmp_path / "3.wav", wave * 2**15, 16_000, subtype="FLOAT")
    data = manifest(tmp_path, names)
    told: list[tuple[str, str]] = []
    source = loader(data, on_bad=lambda *item: told.append(item))
    assert [len(batch) for batch in source] == [2, 2, 2]
    ((key, reason),) = told
    said = r"3\.wav: it has float samples up to 3,.*, where full scale is 1"
    assert key == "3.wav" and re.search(said, reason)
    with pytest.raises(InputError, match=said):
        list(iterate_audio(data, data.clips("train"), 2, 0.2))


def test_a_file_that_vanishes_after_opening(
    tmp_path: Path, write_audio: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number}.wav" for number in range(6)]
    for name in names:
        write_audio(tmp_path / name)
    data = manifest(tmp_path, names)
    (tmp_path / "3.wav").unlink()
    told: list[tuple[str, str]] = []
    source = loader(data, on_bad=lambda *item: told.append(item))
    for _ in range(3):
        assert [len(batch) for batch in source] == [2, 2, 2]
    assert list(source.bad_clips.keys) == ["3.wav"]
    ((key, reason),) = told
    assert key == "3.wav" and "3.wav: no such audio file" in reason
    with pytest.raises(FileNotFoundError, match="3.wav: no such audio file"):
        list(iterate_audio(data, data.clips("train"), 2, 0.2))


def test_a_folder_that_vanishes_stops_the_run(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    names = [f"{number}.wav" for number in range(40)]
    for name in names:
        write_audio(tmp_path / name)
    data = manifest(tmp_path, names)
    for name in names[5:]:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="11 clips cannot be used, more than max_bad=10"):
        list(loader(data))


def test_one_in_a_thousand_is_tolerated() -> None:
    sizes = (1, 10_000, 10_999, 11_000, 100_000)
    assert [tolerated_clips(size) for size in sizes] == [10, 10, 10, 11, 100]


def shard(folder: Path, audio: bytes, clips: int) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for number in range(clips):
            for name, data in ((f"{number}.flac", audio), (f"{number}.json", b'{"text": "x"}')):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return folder / "0.tar"


def test_a_shard_that_is_cut_after_opening(
    tmp_path: Path, write_audio: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    audio = write_audio(tmp_path / "a.flac").read_bytes()
    path = shard(tmp_path / "shards", audio, 4)
    data = open_webdataset(WebdatasetConfig(root=path.parent)).read_with(READER)
    last = data.clips("train")[3].source
    with path.open("r+b") as file:
        file.truncate(last.offset + last.size // 2)
    source = loader(data)
    assert [len(batch) for batch in source] == [2, 2]
    assert list(source.bad_clips.keys) == ["0.tar/3"]
    assert "0.tar, member 3.flac: the file ends" in caplog.text


@pytest.mark.parametrize("what", ["compressed", "pipe"])
def test_a_shard_that_is_no_plain_tar(
    tmp_path: Path, write_audio: Callable[..., Path], what: str
) -> None:
    audio = write_audio(tmp_path / "a.flac").read_bytes()
    path = shard(tmp_path / "shards", audio, 2)
    if what == "compressed":
        import gzip

        path.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(ValueError, match="0.tar breaks off"):
            open_webdataset(WebdatasetConfig(root=path.parent))
    else:
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(FileNotFoundError, match="looked for .*tar"):
            open_webdataset(WebdatasetConfig(root=path.parent))


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """As on a disk that is full: no file grows over ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_on_a_full_disk_costs_one_warning(
    tmp_path: Path, write_audio: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number}.wav" for number in range(4)]
    for name in names:
        write_audio(tmp_path / name)
    data = manifest(tmp_path, names)
    expected = list(loader(data))
    data.read_with(AudioReader(16_000, cache_dir=tmp_path / "cache"))
    with small_files(1_000):
        batches = list(loader(data))
    for batch, right in zip(batches, expected, strict=True):
        torch.testing.assert_close(batch.waveforms, right.waveforms, atol=2**-15, rtol=0)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert caplog.text.count("decoded audio cannot be kept there") == 1


def test_an_entry_that_says_it_is_huge_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(10, np.int16))
    data = path.read_bytes()
    for shape in (b"(10**9,)", b"(99999999999999999999,)"):
        path.write_bytes(data.replace(b"(10,)", shape)[: len(data)])
        assert read_entry(path) is None


@contextmanager
def little_memory(mebibytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


def lying_wav(channels: int, rate: int, frames: int, data: bytes) -> bytes:
    block = 2 * channels
    fields = (16, 1, channels, rate, rate * block % 2**32, block, 16)
    form = b"fmt " + struct.pack("<IHHIIHH", *fields)
    body = form + b"data" + struct.pack("<I", min(frames * block, 2**32 - 1)) + data
    return b"RIFF" + struct.pack("<I", min(len(body) + 4, 2**32 - 1)) + b"WAVE" + body


@pytest.mark.parametrize("frames", [10**6, 10**9])
@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (192, 48_000), (1_024, 768_000)])
def test_a_header_that_promises_hours_takes_no_memory(
    tmp_path: Path, channels: int, rate: int, frames: int
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(lying_wav(channels, rate, frames, bytes(50_000)))
    with little_memory(40):
        ((_, _, problem),) = read_headers([str(path)])
        for samples in (None, 16_000):
            try:
                assert len(read_audio(path, 16_000, samples)) <= 16_000 * 2
            except ValueError as error:
                assert str(path) in str(error)


def test_silence_that_compresses_well_takes_what_is_asked_for(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 192_000, 8, "PCM_16") as file:
        for _ in range(30):
            file.write(np.zeros((192_000, 8), np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 2**18  # decoded: 92 MB
    with little_memory(40):
        assert len(read_audio(tmp_path / "a.flac", 16_000, 16_000)) == 16_000


def test_half_of_a_surrogate_pair_is_replaced_and_depth_is_bounded() -> None:
    assert parse_json('"\\ud83d\\ude00 \\ud83d"') == "\U0001f600 ?"
    assert parse_json(b"[" * 50 + b"]" * 50) is not None
    for text in ("[" * 60 + "]" * 60, "[" * 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(text)


def test_paths_of_a_manifest_are_the_users_own(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    elsewhere = write_audio(tmp_path / "elsewhere" / "c.wav")
    write_audio(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "here").mkdir()
    data = manifest(tmp_path / "here", ["../elsewhere/b.wav", str(elsewhere)])
    assert [clip.key for clip in data.clips("train")] == ["../elsewhere/b.wav", str(elsewhere)]
    for clip in data.clips("train"):
        assert len(data.read_with(READER).load(clip))


def test_opening_a_shard_writes_nothing(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    audio, other = (write_audio(tmp_path / f"{name}.flac").read_bytes() for name in "ab")
    (tmp_path / "in" / "shards").mkdir(parents=True)
    with tarfile.open(tmp_path / "in" / "shards" / "0.tar", "w") as archive:
        for name, content in (
            ("../../out.flac", audio), ("../../out.json", b'{"text": "x"}'),
            (str(tmp_path / "abs.flac"), other), (str(tmp_path / "abs.json"), b'{"text": "y"}'),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    data = open_webdataset(WebdatasetConfig(root=tmp_path / "in" / "shards"))
    assert len([data.read_with(READER).load(clip) for clip in data.clips("train")]) == 2
    assert sorted(tmp_path.rglob("*")) == before
