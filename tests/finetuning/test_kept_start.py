"""A run whose start is gone goes on with what it has taken from there."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from finetune_world import OPTIONS
from tiny_bundle import make_bundle, make_public_clap

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import nested
from atr_moco_plugin.finetuning.prepare import Prepared, prepare

FAIRSEQ2 = importlib.util.find_spec("fairseq2") is not None


def prepared(out: Path, init: Path, **more: Any) -> Prepared:
    options = {key: x for key, x in OPTIONS.items() if not key.startswith("model.")}
    return prepare(nested({**options, "init": str(init), **more}), out, tell=str)


def train(ready: Prepared) -> None:
    if ready.config.loop == "fairseq2":
        from atr_moco_plugin.hosts.fairseq2.finetune import run
    else:
        from atr_moco_plugin.hosts.transformers.finetune.loop import run
    assert run(ready) is not None


def last_checkpoint(out: Path) -> Path:
    names = (out / "checkpoint-6", out / "checkpoints" / "step_6")
    return next(x for x in names if x.exists())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loop", "kind"),
    [("transformers", "bundle"), ("transformers", "clap"), ("fairseq2", "bundle")],
)
def test_a_run_goes_on_without_its_start(loop: str, kind: str, tmp_path: Path) -> None:
    """`init` was not there, though nothing is read from it any more."""
    if loop == "fairseq2" and not FAIRSEQ2:
        pytest.skip("fairseq2 is not installed")
    start, out, more = tmp_path / "start", tmp_path / "out", {"loop": loop}
    if kind == "clap":
        make_public_clap(start)
        more["criterion.name"] = "moco_atc"
    else:
        make_bundle(start, temperature=0.04)
    train(first := prepared(out, start, **more))
    if loop == "transformers":  # the other one keeps the best checkpoint and no more
        shutil.rmtree(last_checkpoint(out))
    shutil.rmtree(start)
    again = prepared(out, start, **more)
    assert again.config == first.config
    train(again)
    assert last_checkpoint(out).is_dir()
    with pytest.raises(InputError, match=f"holds a run with `init={start}`, and .* not there"):
        prepared(out, tmp_path / "other", **more)
    with pytest.raises(InputError, match="there is no such file"):
        prepared(tmp_path / "new", start, **more)
