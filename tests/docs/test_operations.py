"""The lines of docs/operations.md: shell that parses, keys that exist, a launcher that works."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from docs.pages import ROOT, blocks, read

TEXT = read("docs/operations.md")
SHELL = [block.text for block in blocks("docs/operations.md", "bash")]
LAUNCHER = next(block for block in SHELL if "launch.sh: torchrun" in block)

WORKER = """
import pathlib, signal, sys, os
def stop(*_):
    pathlib.Path(sys.argv[1], "stopped" + os.environ["RANK"]).touch()
    sys.exit(0)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path(sys.argv[1], "ready" + os.environ["RANK"]).touch()
while True:
    signal.pause()
"""


def test_shell_lines_parse() -> None:
    assert len(SHELL) == 6
    for block in SHELL:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_recipes_and_presets_exist() -> None:
    for module in re.findall(r"-m (atr_moco_plugin[\w.]*|benchmarks[\w.]*)", TEXT):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
    for file in re.findall(r"(?:recipes|tests)/\w[\w/]*\.(?:yaml|py)", TEXT):
        assert (ROOT / file).is_file(), file


def test_every_key_exists() -> None:
    if importlib.util.find_spec("fairseq2") is None:
        pytest.skip("fairseq2 is not installed")
    import atr_moco_plugin.recipes  # noqa: F401  # first: it brings fairseq2 its libsndfile
    from atr_moco_plugin.criterion import MocoAtcAtmConfig
    from atr_moco_plugin.recipes.audiocaps import AudiocapsRecipeConfig

    sections = [f.name for f in dataclasses.fields(AudiocapsRecipeConfig)]
    keys = set(re.findall(rf"\b((?:{'|'.join(sections)})(?:\.\w+)+)", TEXT))
    assert len(keys) > 12
    for key in keys:
        at: Any = AudiocapsRecipeConfig()
        for part in key.split("."):
            if key.startswith("criterion.config."):
                assert key.rsplit(".", 1)[1] in {
                    f.name for f in dataclasses.fields(MocoAtcAtmConfig)
                }
                break
            if part == "config_overrides":
                break
            assert hasattr(at, part), f"{key}: {type(at).__name__} has no {part}"
            at = getattr(at, part)


def test_the_launcher_passes_the_signal_on(tmp_path: Path) -> None:
    (tmp_path / "launch.sh").write_text(LAUNCHER)
    (tmp_path / "worker.py").write_text(WORKER)
    command = [
        "bash", str(tmp_path / "launch.sh"), "--standalone", "--nproc-per-node", "2",
        str(tmp_path / "worker.py"), str(tmp_path),
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        command, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL
    ) as launcher:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("ready*"))) < 2:
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        launcher.send_signal(signal.SIGUSR1)
        assert launcher.wait(60) == 0
    assert {file.name for file in tmp_path.glob("stopped*")} == {"stopped0", "stopped1"}
