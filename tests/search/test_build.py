"""An index is filled, and again with only what is new, changed or gone."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from sound_folders import write_sound

from atr_moco_plugin.data.audio.stream import AudioWindow
from atr_moco_plugin.errors import DeviceError, InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.build import Report, build, index_info
from atr_moco_plugin.search.local import create_local, open_local
from atr_moco_plugin.search.plan import Task, in_groups
from atr_moco_plugin.search.reading import Again, End, read_sound
from atr_moco_plugin.search.sources import list_sounds, open_recording
from atr_moco_plugin.search.store import Recording, Store
from atr_moco_plugin.search.walk import Found


class World:
    """A folder of sounds and an index of it."""

    def __init__(self, folder: Path, retriever: AudioTextRetriever) -> None:
        self.sounds = folder.resolve() / "sounds"
        self.index = folder / "index"
        self.retriever = retriever

    def write(self, *names: str, seconds: float = 0.4) -> None:
        for name in names:
            write_sound(self.sounds / name, sum(name.encode()), seconds)

    def update(self, source: str | Path = "", **options: Any) -> Report:
        listing = {name: options.pop(name) for name in ("is_list",) if name in options}
        with create_local(self.index, index_info(self.retriever)) as store:
            return build(
                store,
                self.retriever,
                list_sounds(self.sounds / source, **listing),
                threads=2,
                **options,
            )

    def recordings(self) -> list[Recording]:
        with open_local(self.index) as store:
            return list(store.recordings())

    def names(self) -> list[str]:
        return [os.path.relpath(x.name, self.sounds) for x in self.recordings() if not x.problem]


@pytest.fixture
def world(tmp_path: Path, tiny_retriever: AudioTextRetriever) -> World:
    return World(tmp_path, tiny_retriever)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return (report.new, report.changed, report.touched, report.unchanged, report.gone)


def windows(store: Store) -> dict[tuple[str, float, float], int]:
    """Path and span of every window, to its number."""
    query = np.ones((1, store.info.embed_dim), np.float32)
    found = store.nearest(query / np.linalg.norm(query), 10_000)[0]
    return {(hit.recording.name, hit.start, hit.end): hit.window for hit in found}


def test_an_index_has_the_windows_of_every_recording(world: World) -> None:
    for number in range(20):
        world.write(f"{number}.wav", seconds=0.3 + 0.2 * number)
    report = world.update()
    assert counts(report) == (20, 0, 0, 0, 0) and not report.broken
    expected = {}
    for number in range(20):
        path = world.sounds / f"{number}.wav"
        for window in world.retriever.windows(path):
            embedding = world.retriever.embed_windows([window.waveform])
            expected[str(path), window.start, window.end] = embedding
    with open_local(world.index) as store:
        found = windows(store)
        assert found.keys() == expected.keys() and report.windows == len(expected)
        for key, embedding in expected.items():
            best = store.nearest(embedding, 1)[0][0]
            assert best.window == found[key]
            assert best.score == pytest.approx(1, abs=2e-3)
        assert store.counts().seconds == pytest.approx(sum(0.3 + 0.2 * k for k in range(20)))


def test_only_what_is_new_changed_or_gone(world: World) -> None:
    world.write("a.wav", "b.wav", "c.wav", "d.wav")
    assert counts(world.update()) == (4, 0, 0, 0, 0)
    before = {x.path: x for x in world.recordings()}
    write_sound(world.sounds / "b.wav", 77, 0.6)
    os.utime(world.sounds / "c.wav", ns=(5, 5))
    (world.sounds / "d.wav").unlink()
    world.write("e/f.wav")
    assert counts(world.update()) == (1, 1, 1, 1, 1)
    after = {Path(x.path).name: x for x in world.recordings()}
    assert sorted(after) == ["a.wav", "b.wav", "c.wav", "f.wav"]
    assert after["a.wav"] == before[str(world.sounds / "a.wav")]
    assert after["b.wav"].seconds == pytest.approx(0.6)
    old = before[str(world.sounds / "c.wav")]
    assert after["c.wav"].mtime_ns == 5 and after["c.wav"].digest == old.digest
    assert counts(world.update()) == (0, 0, 0, 4, 0)


def test_what_has_the_same_size_and_time_is_not_read(world: World) -> None:
    world.write("a.wav")
    world.update()
    path = world.sounds / "a.wav"
    state = path.stat()
    path.write_bytes(b"?" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    report = world.update()
    assert counts(report) == (0, 0, 0, 1, 0) and not report.broken
    os.utime(path)
    assert len(world.update().broken) == 1


def test_broken_files_are_named_and_not_tried_again(world: World) -> None:
    world.write("a.wav", "b.wav")
    (world.sounds / "empty.wav").touch()
    (world.sounds / "text.wav").write_text("no sound")
    write_sound(world.sounds / "short.wav", seconds=0.01)
    first = world.update()
    reasons = {Path(name).name: reason for name, reason in first.broken}
    assert reasons == {
        "empty.wav": "not readable as audio (the file is empty)",
        "text.wav": "not readable as audio (Format not recognised)",
        "short.wav": "lasts 0.010 s, at least 0.175 s is needed",
    }
    assert counts(first) == (2, 0, 0, 0, 0)
    with open_local(world.index) as store:
        assert store.counts().broken == 3
    # A file that is mended behind the back of its size and time is not seen...
    text = world.sounds / "text.wav"
    again = world.update()
    assert counts(again) == (0, 0, 0, 2, 0) and sorted(again.broken) == sorted(first.broken)
    os.utime(text)  # ... and one that is as broken as before is read once more and stays so.
    touched = world.update()
    assert counts(touched) == (0, 0, 0, 2, 0) and sorted(touched.broken) == sorted(first.broken)
    state = text.stat()
    shutil.copy(world.sounds / "a.wav", text)
    with text.open("r+b") as file:
        file.truncate(max(state.st_size, text.stat().st_size))
    mended = world.update()
    assert mended.changed == 1 and len(mended.broken) == 2
    retried = world.update(retry_broken=True)
    assert counts(retried) == (0, 0, 0, 3, 0) and len(retried.broken) == 2


def test_a_recording_that_breaks_loses_its_windows(world: World) -> None:
    world.write("a.wav", "b.wav")
    world.update()
    (world.sounds / "a.wav").write_text("no sound any more")
    assert [Path(name).name for name, _ in world.update().broken] == ["a.wav"]
    assert world.names() == ["b.wav"]


def task_of(path: Path) -> Task:
    state = path.stat()
    return Task(Found(str(path), "", state.st_size, state.st_mtime_ns), "", False)


def test_a_file_that_changes_while_it_is_read_is_read_once_more(world: World) -> None:
    world.write("a.wav", seconds=1.2)
    path = world.sounds / "a.wav"
    turns = []

    def windows(source: Any) -> Iterator[AudioWindow]:
        yield from world.retriever.windows(source)
        turns.append(source)
        if len(turns) == 1:
            write_sound(path, 9, 0.7)

    items = list(read_sound(task_of(path), windows))
    end = items.pop()
    assert isinstance(end, End) and end.recording is not None and not end.problem
    assert end.recording.size == path.stat().st_size
    assert Again() in items and len(items[items.index(Again()) + 1 :]) == 1


def test_a_file_that_goes_on_changing_is_left_for_another_time(world: World) -> None:
    world.write("a.wav", "b.wav")
    path = world.sounds / "a.wav"
    world.update()
    before = world.recordings()

    class Recorder(AudioTextRetriever):
        """Someone writes to a file whenever it is read."""

        def windows(self, source: Any, sample_rate: int | None = None) -> Iterator[AudioWindow]:
            yield from super().windows(source, sample_rate)
            with path.open("ab") as file:
                file.write(bytes(320))

    os.truncate(path, path.stat().st_size - 2)
    world.retriever = Recorder.from_pretrained(world.retriever.name, device="cpu")
    report = world.update()
    assert report.unsettled == [(str(path), "changes while it is read")]
    assert world.recordings() == before
    world.retriever = AudioTextRetriever.from_pretrained(world.retriever.name, device="cpu")
    assert counts(world.update()) == (0, 1, 0, 1, 0)


def test_a_disk_that_is_not_mounted_empties_no_index(world: World) -> None:
    world.write("a/x.wav", "a/y.wav", "b/z.wav", "b/deep/w.wav", "c.wav")
    world.update()
    moved = world.sounds.with_name("moved")
    world.sounds.rename(moved)
    for _ in range(2):  # the folder is missing, then empty
        with pytest.raises(InputError, match="has no sounds now, but the index has 5 .* --prune"):
            world.update()
        world.sounds.mkdir(exist_ok=True)
    assert len(world.names()) == 5
    world.sounds.rmdir()
    moved.rename(world.sounds)
    shutil.rmtree(world.sounds / "b")
    (world.sounds / "b").mkdir()  # as a mount point is
    (world.sounds / "a/x.wav").unlink()
    report = world.update()
    assert counts(report) == (0, 0, 0, 2, 1)
    assert [os.path.relpath(name, world.sounds) for name in report.kept] == [
        "b/deep/w.wav",
        "b/z.wav",
    ]
    assert counts(world.update(prune=True)) == (0, 0, 0, 2, 2)
    assert world.names() == ["a/y.wav", "c.wav"]
    shutil.rmtree(world.sounds)
    assert counts(world.update(prune=True)) == (0, 0, 0, 0, 2)
    with pytest.raises(InputError, match="no such file or folder"):
        world.update(prune=True)


def test_links_to_a_disk_that_is_not_mounted_empty_no_index(world: World) -> None:
    world.write("a.wav", "../disk/b.wav", "../disk/deep/c.wav", "../other/d.wav")
    disk, other = (world.sounds.with_name(name) for name in ("disk", "other"))
    (world.sounds / "linked").symlink_to(disk)
    (world.sounds / "d.wav").symlink_to(other / "d.wav")
    assert counts(world.update()) == (4, 0, 0, 0, 0)
    shutil.rmtree(disk)
    shutil.rmtree(other)
    report = world.update()
    assert counts(report) == (0, 0, 0, 1, 0)
    kept = [os.path.relpath(name, world.sounds) for name in report.kept]
    assert kept == ["d.wav", "linked/b.wav", "linked/deep/c.wav"]
    assert counts(world.update(prune=True)) == (0, 0, 0, 1, 3)


def test_a_tar_that_breaks_off_keeps_the_rest_of_its_members(world: World) -> None:
    world.write("a.wav", "b.wav", "c.wav")
    path = world.sounds / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.wav", "b.wav", "c.wav"):
            tar.add(world.sounds / name, name)
    world.update("shard.tar")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # as while it is copied
    report = world.update("shard.tar")
    assert report.gone == 0 and f"{path}/c.wav" in report.kept
    assert [name for name, _ in report.unsettled] == [str(path)]
    path.write_bytes(whole)
    report = world.update("shard.tar")
    assert (report.new, report.windows, len(world.names())) == (0, 0, 3)


def test_folders_share_an_index(world: World) -> None:
    world.write("one/a.wav", "one/b.wav", "two/c.wav", "onetwo/d.wav")
    world.update("one")
    world.update("two")
    world.update("onetwo")
    (world.sounds / "one/a.wav").unlink()
    (world.sounds / "two/c.wav").unlink()
    assert counts(world.update("one")) == (0, 0, 0, 1, 1)
    assert world.names() == ["one/b.wav", "onetwo/d.wav", "two/c.wav"]


def test_a_table_of_parts_and_a_folder_share_an_index(world: World) -> None:
    world.write("a.wav", seconds=2.0)
    (world.sounds / "parts.csv").write_text("file_name,start,end\na.wav,0.5,0.9\na.wav,1,7\n")
    report = world.update("parts.csv")
    assert report.new == 1 and "is not in its file" in report.broken[0][1]
    assert counts(world.update()) == (1, 0, 0, 0, 0)
    assert world.names() == ["a.wav", "a.wav#t=0.5,0.9"]
    found = {x.name: x for x in world.recordings()}
    part = found[str(world.sounds / "a.wav#t=0.5,0.9")]
    assert part.seconds == pytest.approx(0.4)
    assert list(world.retriever.windows(open_recording(part)))[0].end == pytest.approx(0.4)


def test_a_list_removes_only_what_it_names_unless_it_prunes(world: World) -> None:
    world.write("a.wav", "b.wav", "c.wav")
    world.update()
    (world.sounds / "list.txt").write_text("a.wav\nb.wav\n")
    (world.sounds / "b.wav").unlink()
    report = world.update("list.txt", is_list=True)
    assert counts(report) == (0, 0, 0, 1, 1)
    assert world.names() == ["a.wav", "c.wav"]
    assert counts(world.update("list.txt", is_list=True, prune=True)) == (0, 0, 0, 1, 1)
    assert world.names() == ["a.wav"]


@pytest.mark.parametrize("lines", ["", "a.wav\n"], ids=["empty", "of another folder"])
@pytest.mark.parametrize("prune", [True, False])
def test_a_list_that_names_no_sound_empties_no_index(world: World, lines: str, prune: bool) -> None:
    world.write("a.wav", "b.wav")
    world.update()
    (world.sounds / "lists").mkdir()
    (world.sounds / "lists/list.txt").write_text(lines)
    what = "names no sound that is there .*--relative-to DIR"
    what += "; to remove all recordings, delete the index$" if prune else "$"
    with pytest.raises(InputError, match=what):
        world.update("lists/list.txt", is_list=True, prune=prune)
    assert world.names() == ["a.wav", "b.wav"]


def test_a_list_whose_disk_is_away_is_told(world: World) -> None:
    world.write("a.wav", "b.wav")
    (world.sounds / "list.txt").write_text("a.wav\nb.wav\n")
    world.update("list.txt", is_list=True)
    for name in "ab":
        (world.sounds / f"{name}.wav").unlink()
    with pytest.raises(InputError, match="has 2 recordings from there; mount the disk .*, or to"):
        world.update("list.txt", is_list=True)
    assert world.names() == ["a.wav", "b.wav"]


def test_members_of_tars(world: World) -> None:
    world.write("a.wav", "b.wav", "c.wav")

    def write_tar(*names: str) -> None:
        with tarfile.open(world.sounds / "shard.tar", "w") as tar:
            for name in names:
                tar.add(world.sounds / f"{name}.wav", f"x/{name}.wav")

    write_tar("a", "b")
    assert counts(world.update("shard.tar")) == (2, 0, 0, 0, 0)
    for recording in world.recordings():
        assert len(list(world.retriever.windows(open_recording(recording)))) == 1
    write_tar("c", "b")  # b is elsewhere in the tar now, and the same
    os.utime(world.sounds / "shard.tar", ns=(7, 7))
    assert counts(world.update("shard.tar")) == (1, 0, 1, 0, 1)
    assert world.names() == ["shard.tar/x/b.wav", "shard.tar/x/c.wav"]
    assert counts(world.update()) == (3, 0, 0, 2, 0)


def test_asked_to_stop_it_keeps_what_is_embedded_and_goes_on(world: World) -> None:
    world.write(*(f"{number:03}.wav" for number in range(300)))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    report = world.update(stop=stop)
    assert report.interrupted and 0 < report.new < 300
    names = world.names()
    assert names == [f"{number:03}.wav" for number in range(report.new)]
    rest = world.update()
    assert counts(rest) == (300 - report.new, 0, 0, report.new, 0) and not rest.interrupted


def test_groups_depend_on_nothing_before_them() -> None:
    sizes = [int(x) for x in torch.randint(1, 2**22, (500,), generator=torch.Generator())]
    tasks = [Task(Found(str(k), "", size, 0), "", False) for k, size in enumerate(sizes)]
    groups = list(in_groups(tasks, 4))
    assert [task for group in groups for task in group] == tasks
    assert max(map(len, groups)) <= 32 and len(groups) > 3
    for number in range(len(groups)):
        rest = [task for group in groups[number:] for task in group]
        assert list(in_groups(rest, 4)) == groups[number:]


def test_a_recording_that_cannot_be_embedded_is_broken_alone(world: World) -> None:
    world.write("a.wav", "b.wav", "c.wav")

    class Picky(AudioTextRetriever):
        """Gives no finite embedding of a loud sound, as float16 may."""

        def embed_windows(self, waveforms: Any) -> Any:
            if any(np.abs(waveform).max() > 0.6 for waveform in waveforms):
                raise InputError("an embedding is not finite")
            return super().embed_windows(waveforms)

    wave, rate = soundfile.read(world.sounds / "b.wav")
    soundfile.write(world.sounds / "b.wav", wave * 2.5, rate)
    world.retriever = Picky.from_pretrained(world.retriever.name, device="cpu")
    report = world.update()
    assert report.new == 2
    names = [str(x.name) for x in world.recordings()]
    assert names == [str(world.sounds / f"{letter}.wav") for letter in "abc"]
    assert report.broken == [
        (str(world.sounds / "b.wav"), "cannot be embedded: an embedding is not finite")
    ]


def test_a_long_recording_that_cannot_be_embedded_is_broken_alone(world: World) -> None:
    """Its windows fill batches of their own."""
    world.write("a.wav", "c.wav")
    soundfile.write(write_sound(world.sounds / "b.wav"), np.full(16_000 * 40, 0.9), 16_000)
    singles = 0

    class Picky(AudioTextRetriever):
        """Gives no finite embedding of a loud sound, as float16 may."""

        def embed_windows(self, waveforms: Any) -> Any:
            nonlocal singles
            singles += len(waveforms) == 1
            if any(np.abs(waveform).max() > 0.6 for waveform in waveforms):
                raise InputError("an embedding is not finite")
            return super().embed_windows(waveforms)

    world.retriever = Picky.from_pretrained(world.retriever.name, device="cpu")
    report = world.update()
    assert report.new == 2 and world.names() == ["a.wav", "c.wav"]
    problem = "cannot be embedded: an embedding is not finite"
    assert report.broken == [(str(world.sounds / "b.wav"), problem)]
    assert singles < 8  # its other windows are not tried


@pytest.mark.parametrize(
    ("sounds", "seconds", "error", "said"),
    [
        (
            ("a.wav", "b.wav"),
            0.4,
            InputError("an embedding is not finite"),
            "2 sounds, such as .*/a.wav, cannot be embedded, .*: an embedding is not finite",
        ),
        # Each fills batches of its own.
        (("a.wav", "b.wav", "c.wav"), 40, InputError("not finite"), "2 sounds, .*/a.wav, cannot"),
        # A batch of one is the last of many.
        (("a.wav",), 0.4, DeviceError("no memory left"), "no memory left"),
    ],
)
def test_what_embeds_nothing_is_no_fault_of_the_sounds(
    world: World, sounds: tuple[str, ...], seconds: float, error: InputError, said: str
) -> None:
    world.write(*sounds, seconds=seconds)

    class Broken(AudioTextRetriever):
        """Embeds nothing."""

        def embed_windows(self, waveforms: Any) -> Any:
            raise error

    world.retriever = Broken.from_pretrained(world.retriever.name, device="cpu")
    with pytest.raises(InputError, match=said):
        world.update()
    assert world.recordings() == []


def test_two_broken_sounds_in_one_batch_stop_nothing_where_others_were_embedded(
    world: World,
) -> None:
    world.write("a.wav", "b.wav")
    for name in ("c.wav", "d.wav"):
        soundfile.write(world.sounds / name, np.full(16_000, 0.9), 16_000)

    class Picky(AudioTextRetriever):
        """Gives no embedding of a loud sound."""

        def embed_windows(self, waveforms: Any) -> Any:
            if any(np.abs(waveform).max() > 0.6 for waveform in waveforms):
                raise InputError("not finite")
            return super().embed_windows(waveforms)

    world.retriever = Picky.from_pretrained(world.retriever.name, device="cpu", batch_size=1)
    report = world.update()
    assert world.names() == ["a.wav", "b.wav"] and len(report.broken) == 2
    # Nor where others were embedded by an earlier update.
    for name in ("e.wav", "f.wav"):
        soundfile.write(world.sounds / name, np.full(16_000, 0.9), 16_000)
    report = world.update()
    assert world.names() == ["a.wav", "b.wav"] and len(report.broken) == 4


def test_one_sound_that_cannot_be_embedded_is_broken(world: World) -> None:
    world.write("a.wav")

    class Broken(AudioTextRetriever):
        """Embeds nothing."""

        def embed_windows(self, waveforms: Any) -> Any:
            raise InputError("not finite")

    world.retriever = Broken.from_pretrained(world.retriever.name, device="cpu")
    report = world.update()
    assert report.broken == [(str(world.sounds / "a.wav"), "cannot be embedded: not finite")]
