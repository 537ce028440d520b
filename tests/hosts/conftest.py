"""Runs of the toy recipe in miniature, through its command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tiny_options: list[str]) -> Run:
    """Run the toy recipe with arguments; returns its exit status."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    # Without it an extension that fails to register only warns.
    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(out: Path, *config: str, more: tuple[str, ...] = ()) -> int:
        # The option of the matching loss is not for a criterion that the test names.
        named = bool(more) or any(x.startswith("criterion.name=") for x in config)
        options = [x for x in tiny_options if not (named and "atm_" in x)]
        arguments = ["recipe", str(out), "--no-rich", *more, "--config", *options, *config]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            run_recipe(ToyRecipeConfig)
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call
