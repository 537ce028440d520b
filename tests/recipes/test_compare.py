"""The command as it is typed: quick to start, and without fairseq2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from compared_folders import clips, evaluation

_WITHOUT = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "fairseq2" else find(name, *rest)
sys.modules["fairseq2"] = None  # importing it fails
sys.orig_argv[:] = ["python", "-m", "atr_moco_plugin.recipes.compare", *sys.argv[1:]]
runs, sys.argv[:] = sys.argv[1:], ["-m"]  # what Python has there until the module is found
import atr_moco_plugin.recipes
sys.argv[1:] = runs
runpy.run_module("atr_moco_plugin.recipes.compare", run_name="__main__", alter_sys=True)
"""


def test_the_recipe_without_fairseq2(tmp_path: Path) -> None:
    runs = [
        str(evaluation(tmp_path / name, clips(), n, config={"name": name}))
        for n, name in enumerate("ab")
    ]
    command = [sys.executable, "-c", _WITHOUT, *runs, "--no-page", "--replicates", "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "b beside a" in done.stdout


def test_the_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "atr_moco_plugin.recipes.compare", str(tmp_path), "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ERROR: nowhere is not there: give the output folder of a run or of an evaluation, or a "
        ".run file of TREC.\n"
    )


def test_finetune_is_imported_without_fairseq2() -> None:
    code = (
        "import sys; sys.modules['fairseq2'] = None  # importing it fails\n"
        "from atr_moco_plugin.recipes.finetune import main; print(main(['x', '--config', 'y']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2\n" and "is no KEY=VALUE" in done.stderr
