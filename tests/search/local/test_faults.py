"""Whatever happens to an index, it is as of its last change, or says what is wrong."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from indexes import DIM, INFO, QUERIES, answers, embedded, some_bank

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.local import create_local, open_local
from atr_moco_plugin.search.store import Embedded

TESTS = Path(__file__).parents[2]


def put_in(folder: Path, *items: Embedded) -> list[object]:
    with create_local(folder, INFO) as store:
        store.put(items)
        return answers(store)


def read(folder: Path) -> list[object]:
    with open_local(folder) as store:
        return answers(store)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    put_in(tmp_path / "index", *(embedded(f"/{n}", n) for n in range(5)))
    return tmp_path / "index"


# Killed.


def test_cut_or_scribbled_on_after_the_last_change(tmp_path: Path) -> None:
    """A writer that is killed leaves rows that no change names, and half a transaction."""
    folder, copy = tmp_path / "index", tmp_path / "copy"
    states = []
    with create_local(folder, INFO) as store:
        states.append(answers(store))
        store.put([embedded(f"/{n}", n) for n in range(5)])
        states.append(answers(store))
        committed = (folder / "vectors-0.f16").stat().st_size
        store.put([embedded("/2", 3, seed=1), embedded("/new", 4)])
        states.append(answers(store))
        base = (folder / "index.sqlite").read_bytes()  # all changes are in the file beside it
        wal = (folder / "index.sqlite-wal").read_bytes()
        vectors = (folder / "vectors-0.f16").read_bytes()
    seen = set()
    places = random.Random(0)
    for cut in [
        0,
        31,
        32,
        len(wal) - 1,
        len(wal),
        *(places.randrange(len(wal)) for _ in range(30)),
    ]:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        (copy / "index.sqlite").write_bytes(base)
        (copy / "index.sqlite-wal").write_bytes(wal[:cut])
        (copy / "vectors-0.f16").write_bytes(vectors)
        found = read(copy)
        seen.add(states.index(found))
        if states.index(found) == 1:  # not even the rows of what was not committed need be there
            with open(copy / "vectors-0.f16", "r+b") as file:
                file.truncate(committed + places.randrange(7))
            assert read(copy) == states[1]
        # The next writer goes on from there.
        with create_local(copy, INFO) as store:
            store.put([embedded(f"/{n}", n) for n in range(5)])
            store.put([embedded("/2", 3, seed=1), embedded("/new", 4)])
            assert answers(store) == states[2]
    assert seen == {0, 1, 2}


WRITER = """
    import itertools, sys
    from pathlib import Path
    from indexes import INFO, embedded, some_bank
    from atr_moco_plugin.search.local import create_local, writing
    writing.LEAST_DEAD = 40
    with create_local(Path(sys.argv[1]), INFO) as store:
        for step in itertools.count(int(sys.argv[2])):
            print(step, flush=True)
            store.set_bank(some_bank(step) if step % 4 else None)
            store.put([embedded(f"/{n}", 1 + (step + n) % 4, step) for n in range(5)])
            if step % 3 == 0:
                store.remove([("/1", ""), ("/4", "")])
"""


def writer(*arguments: object, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        stdout=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )


def states_of(step: int, folder: Path) -> list[list[object]]:
    """What the index may be once :data:`WRITER` has said ``step``: before, between and after."""
    found = []
    with create_local(folder, INFO) as store:

        def put(step: int) -> None:
            store.put([embedded(f"/{n}", 1 + (step + n) % 4, step) for n in range(5)])

        for now in (step - 1, step):
            if now >= 0:
                store.set_bank(some_bank(now) if now % 4 else None)
                found.append(answers(store))
                put(now)
                found.append(answers(store))
                if now % 3 == 0:
                    store.remove([("/1", ""), ("/4", "")])
                    found.append(answers(store))
    return found


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    moments = random.Random(1)
    step = 0
    for kill in range(20):
        process = writer(tmp_path / "index", step)
        assert process.stdout is not None
        step = int(process.stdout.readline())
        time.sleep(0.3 * moments.random())
        process.kill()
        step = int([str(step), *process.stdout.read().split()][-1])
        process.wait()
        assert process.returncode == -signal.SIGKILL
        found = read(tmp_path / "index")
        possible = states_of(step, tmp_path / f"fresh-{kill}")
        assert found in possible or (step == 0 and found[0][0] == 0)  # type: ignore[index]
        assert len(list((tmp_path / "index").glob("*.f16"))) <= 2
    assert step > 20


def test_a_killed_writer_is_followed_by_the_next(tmp_path: Path) -> None:
    process = writer(tmp_path / "index", 0)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    with pytest.raises(InputError, match=rf"index is in use by process {process.pid} on \S+: wait"):
        create_local(tmp_path / "index", INFO)
    with pytest.raises(InputError, match="is in use by process"):
        open_local(tmp_path / "index", write=True)
    with open_local(tmp_path / "index") as reader:
        assert reader.counts().recordings in (3, 5)
    process.kill()
    process.wait()
    process.stdout.close()
    with open_local(tmp_path / "index", write=True) as store:
        assert store.counts().recordings in (3, 5)


# Who may write.


def test_two_writers_in_one_process(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # the lock is not for the first rank alone
    with create_local(index, INFO) as store:
        with pytest.raises(InputError, match="is in use by this process already"):
            open_local(index, write=True)
        store.put([embedded("/more", 1)])
    with open_local(index, write=True) as store:  # closing has given it back
        assert store.counts().recordings == 5


def test_what_is_refused_gives_the_folder_back(index: Path) -> None:
    other = dataclasses.replace(INFO, model="/models/other", fingerprint="e" * 64)
    with pytest.raises(
        InputError,
        match=r"made with the model /models/tiny .fingerprint f{12}., and this is /models/other",
    ):
        create_local(index, other)
    with pytest.raises(InputError, match=r"windows of 10 s every 5 s .* every 2 s .* are wanted"):
        create_local(index, dataclasses.replace(INFO, hop_seconds=2.0))
    with create_local(index, dataclasses.replace(INFO, model="/moved/tiny")) as store:
        assert store.info.model == "/moved/tiny"
    with open_local(index) as store:
        assert store.info.model == "/moved/tiny"


def test_no_index(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        for write in (True, False):
            with pytest.raises(InputError, match=f"{name} holds no index: fill it with `index`"):
                open_local(tmp_path / name, write=write)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "empty" / "index.sqlite").touch()  # of a writer killed at its first step
    with pytest.raises(InputError, match="holds no index"):
        open_local(tmp_path / "empty")
    put_in(tmp_path / "empty", embedded("/a", 1))
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "a.wav").touch()
    with pytest.raises(InputError, match="has other files in it, such as 'a.wav': give a new"):
        create_local(sounds, INFO)
    assert [path.name for path in sounds.iterdir() if path.name != ".lock"] == ["a.wav"]


# Disks.


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("free", [0, 1, 100, 3000, 20_000, 60_000])
def test_a_full_disk(index: Path, free: int) -> None:
    before = read(index)
    many = [embedded(f"/more/{n}", 3) for n in range(3000)]
    with create_local(index, INFO) as store:
        with files_of_at_most(10 * DIM * 2 + free):
            with pytest.raises(InputError, match="cannot be read or written .*: what was put in"):
                store.put(many)
            with pytest.raises(InputError, match="cannot be read or written"):
                store.put(many)
        assert answers(store) == before
        assert read(index) == before
        store.put(many)
        assert store.counts().recordings == 3004
    assert read(index)[0][0] == 3004  # type: ignore[index]


def without_override() -> None:
    """Let permissions bind root too, in the process that is about to start."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


READ_ONLY = """
    import sys
    from pathlib import Path
    from indexes import INFO, answers, embedded
    from atr_moco_plugin.errors import InputError
    from atr_moco_plugin.search.local import create_local, open_local
    folder = Path(sys.argv[1])
    try:
        (folder / "probe").touch()
        sys.exit("the folder can be written")
    except PermissionError:
        pass
    for refused in (lambda: create_local(folder, INFO), lambda: open_local(folder, write=True)):
        try:
            refused()
        except InputError as ex:
            print(ex)
    try:
        store = open_local(folder)
    except InputError as ex:
        sys.exit(print(ex))
    with store:
        print(store.counts().recordings, len(answers(store)), len(list(store.recordings())))
        if len(sys.argv) > 2:
            print(flush=True)
            sys.stdin.readline()
            print(store.counts().recordings, len(answers(store)), len(list(store.recordings())))
"""


def reader(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READ_ONLY), str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        preexec_fn=without_override if os.geteuid() == 0 else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def cannot_be_written(folder: Path) -> Iterator[None]:
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    try:
        yield
    finally:
        for path in (folder, *folder.iterdir()):
            path.chmod(path.stat().st_mode | 0o200)


def test_a_folder_that_cannot_be_written_can_be_read(index: Path) -> None:
    with cannot_be_written(index):
        process = reader(index)
        lines = process.communicate()[0].splitlines()
    assert lines == [
        f"{index} cannot be written (Permission denied): give a folder that can be."
    ] * 2 + ["4 4 5"]


def test_a_reader_that_cannot_write_beside_a_writer(index: Path) -> None:
    """Nobody writes when it opens the index; then somebody does, and it sees that."""
    index.chmod(0o555)
    try:
        process = reader(index, "wait")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[2] == "4 4 5\n"
        index.chmod(0o755)
        with create_local(index, INFO) as store:
            store.put([embedded("/more", 1)])
            index.chmod(0o555)
            assert "5 4 6" in process.communicate("\n")[0]
    finally:
        index.chmod(0o755)
        process.kill()


def test_changes_that_were_never_finished_in_a_folder_that_cannot_be_written(
    index: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with create_local(index, INFO) as store:
        store.put([embedded("/more", 1)])
        shutil.copytree(index, copy, ignore=shutil.ignore_patterns("*-shm"))
    with cannot_be_written(copy):
        lines = reader(copy).communicate()[0].splitlines()
    assert lines[2:] == [
        f"{copy} holds changes that its last writer did not finish, in index.sqlite-wal, and the "
        "folder cannot be written: open the index once where it can be."
    ]
    assert read(copy)[0][0] == 5  # type: ignore[index]


# Damage.


def cut_vectors(folder: Path) -> None:
    os.truncate(folder / "vectors-0.f16", 10 * DIM * 2 - 1)


def no_vectors(folder: Path) -> None:
    (folder / "vectors-0.f16").unlink()


def wild_vectors(folder: Path) -> None:
    with open(folder / "vectors-0.f16", "r+b") as file:
        file.write(np.full(DIM, np.nan, np.float16).tobytes())


def wild_exponents(folder: Path) -> None:
    with open(folder / "vectors-0.f16", "r+b") as file:
        file.write(np.full(DIM, 300, np.float16).tobytes())


def empty_vectors(folder: Path) -> None:
    path = folder / "vectors-0.f16"
    path.write_bytes(bytes(path.stat().st_size))


def wild_sqlite(folder: Path) -> None:
    (folder / "index.sqlite").write_bytes(b"what is this" * 1000)


def cut_sqlite(folder: Path) -> None:
    os.truncate(folder / "index.sqlite", 6000)


def a_later_format(folder: Path) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    connection.execute("UPDATE state SET format = 2")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_vectors, r"vectors-0.f16 has 319 bytes, and the index counts on 320: bring"),
        (no_vectors, r"vectors-0.f16 is missing, and index.sqlite beside it counts on it: bring"),
        (wild_vectors, r"the vectors of .* hold what is no embedding"),
        (wild_exponents, r"the vectors of .* hold what is no embedding"),
        (empty_vectors, r"the vectors of .* hold what is no embedding"),
        (wild_sqlite, r"index.sqlite is damaged \(file is not a database\): make"),
        (cut_sqlite, r"index.sqlite is damaged \(.*\): make"),
        (a_later_format, r"index.sqlite is of format 2, and this version reads format 1: use"),
    ],
)
def test_damage(index: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(index)
    with pytest.raises(InputError, match=message):
        read(index)
    with pytest.raises(InputError, match=message):
        with open_local(index, write=True) as store:
            answers(store)
    with pytest.raises(InputError, match=message):
        with open_index(index) as store:
            answers(store)


def test_bytes_that_changed_are_told_or_do_not_matter(index: Path) -> None:
    before, content = read(index), (index / "index.sqlite").read_bytes()
    places = random.Random(0)
    for _ in range(60):
        wild = bytearray(content)
        for _ in range(8):
            wild[places.randrange(len(wild))] = places.randrange(256)
        (index / "index.sqlite").write_bytes(wild)
        try:
            assert len(read(index)) == len(before)
        except InputError:
            pass


def test_an_index_made_anew_while_it_is_read(index: Path) -> None:
    with open_local(index) as reader:
        assert reader.counts().recordings == 4
        shutil.rmtree(index)
        with pytest.raises(InputError, match="holds no index"):
            reader.counts()
        after = put_in(index, embedded("/other", 2))
        assert answers(reader) == after
        shutil.rmtree(index)
        create_local(index, dataclasses.replace(INFO, fingerprint="0" * 64)).__exit__(
            None, None, None
        )
        for _ in range(2):
            with pytest.raises(InputError, match="was made anew with another model"):
                reader.nearest(QUERIES, 1)
        shutil.rmtree(index)
        create_local(index, dataclasses.replace(INFO, model="/moved")).__exit__(None, None, None)
        assert reader.counts().recordings == 0
