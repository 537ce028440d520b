from __future__ import annotations

import io
import json
import pickle
import tarfile
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.sets import tar_index as shards_module
from atr_moco_plugin.data.sets.tar_shards import WebdatasetConfig, open_webdataset

READER = AudioReader(16_000)

RATE = 16_000


def wave(k: int) -> np.ndarray:
    return np.rint(np.random.default_rng(k).uniform(-9000, 9000, 4000)) / 32768


def audio(k: int, suffix: str = "flac") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave(k), RATE, format=suffix.upper())
    return file.getvalue()


def text(value: Any) -> bytes:
    return json.dumps({"text": value, "tag": ["rain"]}).encode()


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[len(item)] for item in texts])
    return ids, ids > 0


def write(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def clips(*numbers: int) -> list[tuple[str, bytes]]:
    return [
        member
        for k in numbers
        for member in ((f"{k}.flac", audio(k)), (f"{k}.json", text(f"caption {k}")))
    ]


def open_quietly(root: Path, **options: Any) -> AudioTextDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_webdataset(WebdatasetConfig(root, **options))


def open_with_warning(root: Path, match: str, **options: Any) -> AudioTextDataset:
    """Opens with one warning; the same is an error under ``strict``, of one line."""
    with pytest.warns(UserWarning, match=match) as caught:
        data = open_webdataset(WebdatasetConfig(root, **options))
    assert len(caught) == 1
    with pytest.raises(ValueError, match=match) as error:
        open_webdataset(WebdatasetConfig(root, strict=True, **options))
    assert "\n" not in str(error.value)
    return data


def keys(data: AudioTextDataset, split: str = "train") -> list[str]:
    return [clip.key for clip in data.clips(split)]


def test_the_layout_of_laion(tmp_path: Path) -> None:
    write(tmp_path / "train/0.tar", clips(0, 1))
    write(tmp_path / "train/10.tar", [("0.flac", audio(9)), ("0.json", text("caption 9"))])
    write(tmp_path / "train/2.tar", clips(5))
    write(tmp_path / "val/0.tar", [("a.wav", audio(7, "wav")), ("a.json", text(["x", "y z"]))])
    write(tmp_path / "test/0.tar", [("n/b.ogg", audio(8, "ogg")), ("n/b.json", text("w"))])
    sizes = {"0.tar": 2, "2.tar": 1, "10.tar": 1}
    (tmp_path / "train/sizes.json").write_text(json.dumps(sizes))
    before = sorted(path for path in tmp_path.rglob("*"))
    data = open_quietly(tmp_path, strict=True)
    assert keys(data) == ["train/0.tar/0", "train/0.tar/1", "train/2.tar/5", "train/10.tar/0"]
    assert data.clips("train")[1].captions == ("caption 1",)
    assert keys(data, "valid") == ["val/0.tar/a"]
    assert data.clips("valid")[0].captions == ("x", "y z")
    assert keys(data, "test") == ["test/0.tar/n/b"]
    assert data.missing == 0
    for clip, k in zip(data.clips("train"), (0, 1, 5, 9), strict=True):
        np.testing.assert_array_equal(data.read_with(READER).load(clip), wave(k).astype(np.float32))
    np.testing.assert_array_equal(data.load(data.clips("valid")[0]), wave(7).astype(np.float32))
    assert data.read_with(READER).load(data.clips("test")[0]).shape == (4000,)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_one_folder_of_shards_is_one_split(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", clips(3))
    assert list(open_quietly(tmp_path).splits) == ["train"]
    assert keys(open_quietly(tmp_path, split="test"), "test") == ["0.tar/3"]


def test_folders_of_one_split_are_joined_and_others_keep_their_names(tmp_path: Path) -> None:
    write(tmp_path / "balanced_train/0.tar", clips(0))
    write(tmp_path / "unbalanced_train/0.tar", [("0.ogg", audio(1, "ogg")), *clips(0)[1:]])
    write(tmp_path / "extra/0.tar", [("0.wav", audio(2, "wav")), *clips(0)[1:]])
    data = open_quietly(tmp_path)
    assert keys(data) == ["balanced_train/0.tar/0", "unbalanced_train/0.tar/0"]
    assert keys(data, "extra") == ["extra/0.tar/0"]


def test_a_wrong_root_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/0.tar.gz").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"looked for \*\.tar .*found train/"):
        open_webdataset(WebdatasetConfig(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_webdataset(WebdatasetConfig(tmp_path / "gone"))
    with pytest.raises(ValueError, match="set root"):
        open_webdataset(WebdatasetConfig())


def test_shards_beside_split_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", clips(0))
    write(tmp_path / "train/0.tar", clips(1))
    with pytest.raises(ValueError, match="has shards itself and in train; move 0.tar"):
        open_webdataset(WebdatasetConfig(tmp_path))


def test_of_a_truncated_shard_what_comes_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "train/0.tar"
    write(path, clips(0, 1, 2, 3))
    write(tmp_path / "train/1.tar", clips(9))
    with tarfile.open(path) as tar:
        cut = tar.getmember("2.flac").offset_data + 100
    path.write_bytes(path.read_bytes()[:cut])
    (path.parent / "sizes.json").write_text('{"0.tar": 4, "1.tar": 1}')
    match = r"train/0\.tar breaks off \(.*'2\.flac'\): 2 clips come before that, sizes.json has 4"
    data = open_with_warning(tmp_path, match)
    assert keys(data) == ["train/0.tar/0", "train/0.tar/1", "train/1.tar/9"]
    assert data.missing == data.counts["train"].missing == 2


@pytest.mark.parametrize("where", ["in a header", "between members", "a broken header"])
def test_other_places_where_a_shard_may_break_off(tmp_path: Path, where: str) -> None:
    path = tmp_path / "0.tar"
    write(path, clips(0, 1, 2))
    with tarfile.open(path) as tar:
        header = tar.getmember("1.flac").offset
    content = bytearray(path.read_bytes())
    if where == "a broken header":
        content[header + 5 : header + 300] = b"\xa7" * 295
    else:
        del content[header + (200 if where == "in a header" else 0) :]
    path.write_bytes(content)
    if where == "between members":
        # Nothing but sizes.json can tell.
        assert keys(open_quietly(tmp_path)) == ["0.tar/0"]
        (tmp_path / "sizes.json").write_text('{"0.tar": 3}')
        data = open_with_warning(tmp_path, "0.tar has 1 clips, sizes.json has 3")
        assert data.missing == 2
    else:
        data = open_with_warning(tmp_path, r"0\.tar breaks off \(")
    assert keys(data) == ["0.tar/0"]


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", clips(0))
    (tmp_path / "1.tar").write_bytes(b"<html>404</html>" * 100)
    (tmp_path / "2.tar").write_bytes(b"")
    data = open_with_warning(tmp_path, r"1\.tar breaks off .*2\.tar breaks off")
    assert keys(data) == ["0.tar/0"]
    (tmp_path / "0.tar").unlink()
    with pytest.raises(ValueError, match=r"1\.tar breaks off"):
        open_webdataset(WebdatasetConfig(tmp_path))


def test_sizes_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", clips(0, 1))
    (tmp_path / "sizes.json").write_text('{"0.tar": 1, "7.tar": 5}')
    data = open_with_warning(
        tmp_path, "0.tar has 2 clips, sizes.json has 1; 7.tar is not there, sizes.json has 5"
    )
    assert len(keys(data)) == 2 and data.missing == 5
    (tmp_path / "sizes.json").write_text("[1, 2")
    open_with_warning(tmp_path, "sizes.json is not a JSON object")


BAD_JSON = {
    "not JSON": b"{'text': 1}",
    "no object": b'["rain"]',
    "no text": b'{"caption": "rain"}',
    "a number": b'{"text": 3}',
    "no words": b'{"text": ["...", " "]}',
    "not UTF-8": b'{"text": "\xff\xfe\xfa"}',
    "deep": b"[" * 100_000,
    "huge": b'{"text": "' + b"a" * 2**20 + b'"}',
    "absent": None,
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_a_clip_without_a_text_is_a_counted_skip(tmp_path: Path, kind: str) -> None:
    members = [*clips(0), ("bad.flac", audio(1))]
    data = BAD_JSON[kind]
    if data is not None:
        members.append(("bad.json", data))
    write(tmp_path / "0.tar", [*members, *clips(2)])
    data = open_with_warning(tmp_path, "no JSON or .txt with a text for 'bad'")
    assert keys(data) == ["0.tar/0", "0.tar/2"]
    assert data.counts["train"].no_caption == 1


def test_plain_text_beside_the_audio_as_open_clip_writes_it(tmp_path: Path) -> None:
    """One caption a file, whatever its line ends; it stands in for a JSON without a text."""
    members = [
        ("0.flac", audio(0)),
        ("0.txt", b"\xef\xbb\xbfa dog barks\r\nin the rain\n"),
        ("1.txt", "ein Hund, müde".encode()),
        ("1.mp3", audio(1, "mp3")),
        ("2.flac", audio(2)),
        ("2.txt", b"a dog"),
        ("2.json", text(["a dog", "an animal"])),
        ("3.flac", audio(3)),
        ("3.json", json.dumps({"sha256": "1f", "duration": 0.25}).encode()),
        ("3.txt", b"rain"),
        ("4.flac", audio(4)),
        ("4.txt", b" \n"),
        ("5.flac", audio(5)),
        ("5.txt", b"\xff\xfe\x00"),
        ("6.txt", b"a cat without audio"),
    ]
    write(tmp_path / "train/0.tar", members)
    data = open_with_warning(tmp_path, "no JSON or .txt with a text for '4' and 1 more")
    assert {clip.key: clip.captions for clip in data.clips("train")} == {
        "train/0.tar/0": ("a dog barks in the rain",),
        "train/0.tar/1": ("ein Hund, müde",),
        "train/0.tar/2": ("a dog", "an animal"),
        "train/0.tar/3": ("rain",),
    }
    counts = data.counts["train"]
    assert (counts.missing, counts.no_caption, counts.empty_captions) == (1, 2, 1)
    read = data.read_with(READER).load(data.clips("train")[0])
    np.testing.assert_array_equal(read, wave(0).astype(np.float32))


def test_captions_without_words_are_dropped_from_a_list(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [("0.flac", audio(0)), ("0.json", text(["", " rain ", None, "!"]))])
    data = open_quietly(tmp_path)
    assert data.clips("train")[0].captions == ("rain",)
    assert data.counts["train"].empty_captions == 2


def test_a_caption_without_audio_counts_as_missing(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [*clips(0), ("1.json", text("rain")), ("2.txt", b"other")])
    data = open_with_warning(tmp_path, "no audio for '1' and 1 more")
    assert keys(data) == ["0.tar/0"] and data.missing == 2


def test_of_two_members_of_one_name_the_first_counts(tmp_path: Path) -> None:
    again = [("0.flac", audio(5)), ("0.json", text("another"))]
    write(tmp_path / "0.tar", [*clips(0), *again])
    data = open_with_warning(tmp_path, "2 members have the name of an earlier one .*0.flac")
    assert keys(data) == ["0.tar/0"] and data.clips("train")[0].captions == ("caption 0",)
    read = data.read_with(READER).load(data.clips("train")[0])
    np.testing.assert_array_equal(read, wave(0).astype(np.float32))
    assert data.counts["train"].repeated_rows == 2


def test_of_two_sounds_of_one_key_the_first_counts(tmp_path: Path) -> None:
    """One of them was dropped by its suffix, without a word and under `strict` too."""
    members = [("0.wav", audio(0, "wav")), ("0.flac", audio(5)), ("0.json", text("caption 0"))]
    write(tmp_path / "0.tar", members)
    data = open_with_warning(tmp_path, "1 sounds have the key of an earlier sound .'0.flac'.")
    read = data.read_with(READER).load(data.clips("train")[0])
    np.testing.assert_array_equal(read, wave(0).astype(np.float32))
    assert data.counts["train"].repeated_rows == 1


def test_names_are_never_paths_and_links_are_passed_over(tmp_path: Path) -> None:
    outside = tmp_path / "outside.flac"
    outside.write_bytes(audio(3))
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as tar:
        for name, data in [
            ("../../e.flac", audio(0)), ("../../e.json", text("up")),
            ("/etc/f.flac", audio(1)), ("/etc/f.json", text("absolute")),
            ("l.json", text("link")), ("h.json", text("hard link")), ("d.json", text("device")),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind in [
            ("l.flac", tarfile.SYMTYPE), ("h.flac", tarfile.LNKTYPE), ("d.flac", tarfile.CHRTYPE),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(outside)
            tar.addfile(info)
    data = open_with_warning(root, "no audio for 'l' and 2 more")
    assert keys(data) == ["0.tar/../../e", "0.tar//etc/f"]
    read = data.read_with(READER).load(data.clips("train")[0])
    np.testing.assert_array_equal(read, wave(0).astype(np.float32))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "outside.flac", "root"]


def raw_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[124:136], header[156:157] = b"0000644\0", size, kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


HOSTILE = {
    "a member of 8 EiB": raw_header(b"1.flac", b"\x80\0\0\0" + (2**63 - 1).to_bytes(8, "big")),
    "a negative size": raw_header(b"1.flac", b"\xff" * 11 + b"\x00"),
    "a negative extension": raw_header(b"1.flac", b"\xff" * 11 + b"\x00", b"x"),
    "a huge extension": raw_header(b"1.flac", b"77777777777\0", b"x") + b"1" * 4096,
    "a huge long name": raw_header(b"1.flac", b"77777777777\0", b"L") + b"1" * 4096,
    "extensions of extensions": raw_header(b"1.flac", b"00000000000\0", b"x") * 3000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_ends_the_shard(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "0.tar", clips(0))
    content = (tmp_path / "0.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + 512
    (tmp_path / "0.tar").write_bytes(content[:end] + HOSTILE[kind] + b"\0" * 1024)
    data = open_with_warning(tmp_path, r"0\.tar breaks off \(")
    assert keys(data) == ["0.tar/0"]


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_an_extension_of_a_header_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    write(tmp_path / "0.tar", clips(0))
    with (tmp_path / "1.tar").open("wb") as file:
        file.write(raw_header(b"1.flac", b"00400000000\0", kind))  # 64 MiB, and they are there
        file.truncate(2**26 + 2048)
    tracemalloc.start()
    data = open_with_warning(tmp_path, r"1\.tar breaks off \(a member header is too large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert keys(data) == ["0.tar/0"] and peak < 2**25


def test_a_sparse_member_that_promises_a_long_map_ends_the_shard(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", clips(0))
    with tarfile.open(tmp_path / "1.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("1.flac")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        info.size = 512
        tar.addfile(info, io.BytesIO(b"999999999999\n" + b"1\n" * 249 + b"\n"))
    assert keys(open_with_warning(tmp_path, r"1\.tar breaks off \(")) == ["0.tar/0"]


def test_audio_too_large_for_memory_is_a_counted_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "0.tar", [*clips(0), ("1.wav", audio(1, "wav")), ("1.json", text("long"))])
    size = max(len(audio(0)), len(audio(1, "wav"))) - 1
    assert len(audio(0)) <= size
    monkeypatch.setattr(shards_module, "MAX_SLICE_BYTES", size)
    data = open_with_warning(tmp_path, "audio that is too large for '1'")
    assert keys(data) == ["0.tar/0"] and data.counts["train"].unreadable == 1


def test_damaged_audio_in_a_shard_is_named(tmp_path: Path) -> None:
    damaged = [("0.flac", b"not audio"), ("1.flac", b"")]
    write(tmp_path / "0.tar", [*damaged, ("0.json", text("a")), ("1.json", text("b"))])
    data = open_quietly(tmp_path)
    for clip, message in zip(
        data.clips("train"), ("not readable as audio", "the file is empty"), strict=False
    ):
        with pytest.raises(ValueError, match=message) as error:
            data.read_with(READER).load(clip)
        assert str(error.value).startswith(f"{tmp_path / '0.tar'}, member {clip.key[-1]}.flac: ")
    # A shard that is cut short while it is in use.
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="ends 9 bytes too early"):
        data.read_with(READER).load(data.clips("train")[0])
    (tmp_path / "0.tar").unlink()
    with pytest.raises(FileNotFoundError, match="no such audio file"):
        data.read_with(READER).load(data.clips("train")[0])


def test_the_index_goes_to_workers(tmp_path: Path) -> None:
    write(tmp_path / "train/0.tar", clips(0, 1, 2))
    write(tmp_path / "train/1.tar", clips(3, 4, 5))
    data = open_quietly(tmp_path).read_with(READER)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.fingerprint() == data.fingerprint()
    options: dict[str, Any] = {"max_seconds": 0.2, "shuffle": True, "seed": 1, "drop_last": True}
    alone = list(PairLoader(data, "train", tokenize, 2, **options))
    workers = list(PairLoader(copy, "train", tokenize, 2, num_workers=2, **options))
    assert len(alone) == len(workers) == 3
    for a, b in zip(alone, workers, strict=False):
        assert torch.equal(a.waveforms, b.waveforms) and torch.equal(a.clip_ids, b.clip_ids)


def test_a_list_leaves_clips_out(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train" / "0.tar", clips(0, 1, 2))
    write(tmp_path / "root" / "test" / "0.tar", clips(1))
    with pytest.raises(ValueError, match="1 recordings are in two splits"):
        open_quietly(tmp_path / "root")
    (tmp_path / "list.txt").write_text("train/0.tar/1\n")
    data = open_quietly(tmp_path / "root", exclude=tmp_path / "list.txt")
    assert [clip.key for clip in data.clips("train")] == ["train/0.tar/0", "train/0.tar/2"]
    assert (data.counts["train"].excluded, data.counts["test"].excluded) == (1, 0)
    assert "1 clips left out by the list of exclude" in data.summary()
