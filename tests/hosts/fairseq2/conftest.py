"""One finished tiny run for all tests that read it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str]) -> Path:
    """A finished run with checkpoints of steps 2 and 4, to be read and not changed."""
    if importlib.util.find_spec("fairseq2") is None:
        pytest.skip("fairseq2 is not installed")
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Without it an extension that fails to register only warns.
        monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")
        arguments = ["recipe", str(out), "--no-rich", "--config", *tiny_options]
        monkeypatch.setattr(sys, "argv", arguments)
        run_recipe(ToyRecipeConfig)
    return out


@pytest.fixture
def trained_copy(trained: Path, tmp_path: Path) -> Path:
    """The same run in a folder of the test's own."""
    shutil.copytree(trained, tmp_path / "trained")
    return tmp_path / "trained"


@pytest.fixture
def stopped(trained_copy: Path) -> Path:
    """The same run as if it had been stopped before step 4."""
    shutil.rmtree(trained_copy / "checkpoints" / "step_4")
    (trained_copy / "checkpoints" / "scores" / "step_4.txt").unlink()
    return trained_copy


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the evaluation recipe; returns its exit status."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation

    def call(out: Path, *config: str, more: tuple[str, ...] = ()) -> int:
        monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")
        arguments = ["recipe", str(out), "--no-rich", *more, "--config", *config]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            run_evaluation()
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call
