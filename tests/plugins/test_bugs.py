"""A bug of a plugin keeps its traceback, a user's mistake that it names is one line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

MODEL = """
model:
  config_overrides:
    embed_dim: 12
    audio: {name: acme_cnn, config: {width: 24}}
    text: {name: acme_gru, config: {vocab_size: 512, width: 20}}
    head: {name: acme_mlp}
criterion: acme_siglip
hooks: {acme_mean: {every: 2}}
"""
Run = Callable[[Path], int]

BUG = "int('no number')"
SAID = "invalid literal for int() with base 10: 'no number'"
WHERE = {
    "encoder": ("audio.py", "        return cls(config)", f"        {BUG}; return cls(config)"),
    "criterion": ("criterion.py", "        self.config = config", f"        {BUG}"),
    "hook": ("hook.py", "        self.path = path", f"        {BUG}"),
    "training": ("criterion.py", "        a, _ =", f"        {BUG}\n        a, _ ="),
    "evaluation": (
        "text.py",
        "        # It reads",
        f"        if not self.training:\n            {BUG}\n        # It reads",
    ),
    "import": ("head.py", "@dataclass", f"{BUG}\n\n@dataclass"),
}


@pytest.fixture
def run(acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(out: Path) -> int:
        file = tmp_path / "run.yaml"
        file.write_text(MODEL)
        sizes = [f"dataset.config_overrides.num_{x}" for x in ("train=30", "valid=6", "test=6")]
        options = [*sizes, "dataset.batch_size=8", "report=false", "regime.num_steps=2",
                   "dataset.max_seconds=1.0", "regime.validate_every_n_steps=2",
                   "regime.checkpoint_every_n_steps=2",
                   "regime.publish_metrics_every_n_steps=1"]  # fmt: skip
        arguments = ["--no-rich", "--config-file", str(file), "--config", *options]
        monkeypatch.setattr(sys, "argv", ["recipe", str(out), *arguments])
        with pytest.raises(SystemExit) as caught:
            run_recipe(ToyRecipeConfig)
        return int(caught.value.code or 0)

    return call


def change(site: Path, file: str, old: str, new: str) -> None:
    path = site / "acme_atr" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("part", WHERE)
def test_a_bug_of_a_plugin_keeps_its_traceback(
    run: Run, acme: Path, tmp_path: Path, capfd, part: str
) -> None:
    file, old, new = WHERE[part]
    change(acme, file, old, new)
    status = run(tmp_path / "out")
    written = capfd.readouterr().err
    assert SAID in written and status != 0
    assert f"acme_atr/{file}" in written
    if part != "import":  # which one sentence names, with file and line
        assert status == 1 and "Traceback" in written


@pytest.mark.parametrize("part", ["encoder", "criterion", "hook", "evaluation"])
def test_a_mistake_that_a_plugin_names_is_one_line(
    run: Run, acme: Path, tmp_path: Path, capfd, part: str
) -> None:
    file, old, new = WHERE[part]
    fault = "raise __import__('atr_moco_plugin').InputError('set `width` to 3.')"
    # `x; return y` would never return.
    change(acme, file, old, new.replace(BUG, fault))
    assert run(tmp_path / "out") == 2
    written = capfd.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1, written[-3000:]
    assert errors[0].endswith("set `width` to 3.")
