"""Kill ``index`` again and again at random moments, and compare the index it ends with.

As a script it does so in full (``python tests/search/kill_index.py --help``); the test does it in
small. Moments lie anywhere in the time that the undisturbed run takes, so that kills fall into
starting, listing, embedding and writing alike.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sound_folders import write_sound
from tiny_bundle import make_bundle

from atr_moco_plugin.commands.main import main as command_line
from atr_moco_plugin.search.bank import BankInfo
from atr_moco_plugin.search.local import open_local
from atr_moco_plugin.search.store import Recording


def write_sounds(folder: Path, count: int) -> None:
    """Short and long sounds, broken ones and files that are none."""
    for number in range(count):
        write_sound(folder / f"{number % 7}/{number:04}.wav", number, 0.3 + number % 11 / 4)
    for number in range(0, count, 40):
        (folder / f"{number % 7}/{number:04}.txt").write_text("no sound")
        (folder / f"{number % 7}/{number:04}-broken.wav").write_text("no sound either")


def write_bank(file: Path, seed: int) -> Path:
    """Sentences to correct with."""
    words = "a dog barks far away rain falls siren wails".split()
    draw = random.Random(seed)
    file.write_text("".join(f"{' '.join(draw.choices(words, k=6))} {n}\n" for n in range(200)))
    return file


def index(sounds: Path, bundle: Path, folder: Path, bank: Path) -> None:
    """The command, in this process; the exit status is its own."""
    os.setsid()
    with open(folder.with_suffix(".log"), "ab", 0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    options = ["--model", str(bundle), "--index", str(folder), "--device", "cpu"]
    options += ["--bank", str(bank), "--batch-size", "4"]
    sys.exit(command_line(["index", str(sounds), *options]))


@cache
def _server() -> Any:
    """Forks of a process that has imported all it needs, and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "atr_moco_plugin.search.build"])
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def run(
    sounds: Path, bundle: Path, folder: Path, bank: Path, kill_after: float | None = None
) -> bool:
    """Run the command; whether it came to its end."""
    process = _server().Process(target=index, args=(sounds, bundle, folder, bank))
    process.start()
    process.join(kill_after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    assert process.exitcode == 0, folder.with_suffix(".log").read_text()[-3000:]
    return True


class Content(NamedTuple):
    """All that an index holds.

    Attributes:
        recordings: as the index lists them.
        windows: number of each window in the order of the index, to its path, start and end.
        scores: cosine of each with a few queries, which differ where a bit of its vector does, and
            what a correction leaves of it, where a bit of its offset does.
        bank: that corrects.
    """

    recordings: list[Recording]
    windows: list[tuple[str, float, float]]
    scores: np.ndarray[Any, Any]
    bank: BankInfo | None


def content(folder: Path) -> Content:
    """Read an index as anyone does."""
    with open_local(folder) as store:
        width = store.info.embed_dim
        queries = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        bank = store.bank()
        rows: dict[int, tuple[tuple[str, float, float], list[float]]] = {}
        windows = max(store.counts().windows, 1)
        for hits in store.nearest(queries, windows, alpha=0.0 if bank is None else 1.0):
            for hit in hits:
                name = (hit.recording.name, hit.start, hit.end)
                rows.setdefault(hit.window, (name, []))[1].extend([hit.score, hit.cosine])
        order = sorted(rows)
        return Content(
            list(store.recordings()),
            [rows[number][0] for number in order],
            np.array([rows[number][1] for number in order]),
            bank,
        )


def differences(a: Content, b: Content) -> list[str]:
    """What is not equal in two indexes."""
    found = []
    if a.bank != b.bank:
        found.append(f"banks: {a.bank} and {b.bank}")
    if a.recordings != b.recordings:
        found.append(f"recordings: {len(set(a.recordings) ^ set(b.recordings))} differ")
    if sorted(a.windows) != sorted(b.windows):
        found.append(f"windows: {len(set(a.windows) ^ set(b.windows))} differ")
    elif a.windows != b.windows:
        found.append("order of the windows")
    elif not np.array_equal(a.scores, b.scores):
        most = np.abs(a.scores - b.scores).max()
        found.append(f"vectors or offsets: by up to {most:.1e} in a score")
    return found


def kill_and_compare(folder: Path, count: int, kills: int, seed: int) -> tuple[int, list[str]]:
    """Index the same sounds with and without kills, then give both indexes another bank.

    Args:
        folder: empty.
        count: of sounds.
        kills: how often it is killed.
        seed: of the moments.

    Returns:
        How many kills left an index with something and not all in it, and what is not equal.
    """
    sounds, bundle = folder / "sounds", make_bundle(folder / "bundle", hop_seconds=0.5)
    write_sounds(sounds, count)
    banks = [write_bank(folder / f"bank-{n}.txt", n) for n in range(2)]
    begin = time.monotonic()
    assert run(sounds, bundle, folder / "whole", banks[0])
    seconds = time.monotonic() - begin
    moments, partial, killed = random.Random(seed), 0, folder / "killed"
    done = 0
    while done < kills:
        if run(sounds, bundle, killed, banks[0], moments.uniform(0, seconds / 2)):
            shutil.rmtree(killed)  # it came to its end: begin anew
            continue
        done += 1
        if (killed / "index.sqlite").exists():
            try:
                with open_local(killed) as store:
                    partial += 0 < store.counts().recordings < count
            except ValueError:  # killed while it was made
                continue
    assert run(sounds, bundle, killed, banks[0])
    found = differences(content(folder / "whole"), content(killed))
    # Another bank: all of its offsets or none of them.
    before = content(folder / "whole")
    begin = time.monotonic()
    assert run(sounds, bundle, folder / "whole", banks[1])
    seconds = time.monotonic() - begin
    after = content(folder / "whole")
    for _ in range(kills):
        run(sounds, bundle, killed, banks[1], moments.uniform(0, seconds))
        now = content(killed)
        found += differences(before if now.bank == before.bank else after, now)
    assert run(sounds, bundle, killed, banks[1])
    return partial, found + differences(after, content(killed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sounds", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        partial, found = kill_and_compare(Path(folder), options.sounds, options.kills, options.seed)
    print(f"{options.kills} kills, {partial} of them with a part of the sounds in the index.")
    if found:
        sys.exit(f"Not equal: {'; '.join(found)}")
    print("Recordings, windows, their order, vectors and offsets are equal, to the last bit.")


if __name__ == "__main__":
    main()
