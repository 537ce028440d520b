"""Two runs that start with one new cache: the second waits, and reads what the first one wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Opens the cache of nine clips, two to a file, and says each thing that it is told. A run that is
# told to be slow waits for a line on its standard input after each file.
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, TESTS)
from cache_parts import RATE, SECONDS, frozen_model, tokenize, write_sounds
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.embedding_cache import clips
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.towers import open_caches

folder, slow = Path(sys.argv[1]), sys.argv[2] == "slow"
clips.items_a_shard = lambda size: 2
data = AudioTextDataset("d", {"train": write_sounds(Path(sys.argv[3]))}).read_with(
    AudioReader(RATE)
)

def say(text):
    print(text, flush=True)
    if slow and "files of outputs" in text:
        sys.stdin.readline()

open_caches(
    frozen_model(text=False), data, "train", tokenize, CacheOptions(folder=folder),
    max_seconds=SECONDS, matches=False, say=say,
)
""".replace("TESTS", repr(str(Path(__file__).parent.parent)))


class Run:
    """A run of its own process."""

    def __init__(self, tmp_path: Path, name: str, speed: str) -> None:
        words = [sys.executable, "-c", RUN, str(tmp_path / "cache"), speed, str(tmp_path / name)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def read(self) -> str:
        """The next thing that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.mark.parametrize("killed", [False, True], ids=["ends", "killed"])
def test_the_second_run_waits_for_the_first_one(tmp_path: Path, killed: bool) -> None:
    first = Run(tmp_path, "a", "slow")
    assert "9 of 9 clips are written" in first.read()
    assert "1 of 5 files" in first.read()
    second = Run(tmp_path, "a", "fast")  # the same sounds
    assert f"is being written by another run (process {first.process.pid} on" in second.read()
    if killed:
        first.process.kill()
        first.process.wait()
        said = second.read()
        assert "the outputs of 7 of 9 clips are written" in said
    else:
        first.process.communicate("\n" * 5)
        assert first.process.returncode == 0
        assert "has the outputs of all 9 clips: none" in second.read()
    second.process.communicate()
    assert second.process.returncode == 0
    assert len(list((tmp_path / "cache" / "clips-train").glob("*.safetensors"))) == 5
