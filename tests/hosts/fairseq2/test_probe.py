"""The probe of the rank hook: keys of a fixed batch in a run of fairseq2."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.recipe.config import RegimeSection

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.criterion.probe import PROBE_PAIRS
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.training import hooks
from atr_moco_plugin.hosts.fairseq2.training.hooks import lost_records, make_hooks

Run = Callable[..., int]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def checkpoint(out: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


def test_a_probe_is_encoded_while_the_run_stays_the_same(run: Run, tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    assert run(with_it, "hooks.rank.probe_every=1") == 0
    assert run(without, "hooks.rank.probe_every=0") == 0
    one, other = checkpoint(with_it, 4), checkpoint(without, 4)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    losses = [
        [record["ATC Loss"] for record in lines(out / "metrics" / "train.jsonl")]
        for out in (with_it, without)
    ]
    assert losses[0] == losses[1]
    drifts = [record["drift"] for record in lines(with_it / "rank.jsonl")]
    assert [list(x["sources"]["audio"]["same"]) for x in drifts] == [
        ["1"], ["1", "2"], ["1", "2"], ["1", "2", "4"],
    ]  # fmt: skip
    for drift in drifts:
        for source in drift["sources"].values():
            assert all(0.5 < value <= 1 for value in source["same"].values())
    with np.load(with_it / "rank_probe.npz") as file:
        assert file["0/audio"].shape == (PROBE_PAIRS, 12)
    assert "drift" not in lines(without / "rank.jsonl")[0]
    recorded = lines(with_it / "metrics" / "rank.jsonl")[-1]
    assert {"audio_same_4x", "text_different"} <= recorded.keys()


@pytest.mark.slow
def test_drift_goes_on_in_a_resumed_run(run: Run, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert run(whole, "hooks.rank.probe_every=1") == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    (resumed / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(resumed, "hooks.rank.probe_every=1") == 0
    assert (resumed / "rank.jsonl").read_text() == (whole / "rank.jsonl").read_text()


def test_a_probe_that_cannot_be_is_refused(tiny_model, tmp_path: Path) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(queue_size=8))
    context = SimpleNamespace(
        output_dir=tmp_path, gangs=SimpleNamespace(root=SimpleNamespace(rank=1))
    )

    def never(_: int):
        raise AssertionError("nobody reads a probe here")

    sections = {"rank": {"probe_every": 3}}
    assert make_hooks(sections, criterion, context, never) == {}  # not the first process
    criterion.temperature.to_local = lambda: None  # as the shards of FSDP have it
    with pytest.raises(InputError, match="`hooks.rank.probe_every` is 3, but FSDP shards"):
        make_hooks(sections, criterion, context, never)
    context.gangs.root.rank = 0
    (hook,) = make_hooks({"rank": {}}, criterion, context, never).values()
    assert hook.look(0) is None
    del criterion.temperature.to_local
    make_hooks({"rank": {}}, criterion, context, never, compiled=True)
    with pytest.raises(InputError, match="`hooks.rank` is not valid"):
        make_hooks({"rank": {"probe_evry": 3, "probe_every": 0}}, criterion, context, never)


class Silent:
    """A hook of another package."""

    def __init__(self, queues: object, path: Path, *, often: int = 1) -> None:
        raise AssertionError("there are no queues to look at")


def test_hooks_of_a_criterion_without_queues_are_checked_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was written wrongly went without a word."""
    criterion, context = SimpleNamespace(queues={}), SimpleNamespace(output_dir=tmp_path)
    warned: list[str] = []
    monkeypatch.setattr(hooks.log, "warning", lambda text, *args: warned.append(text.format(*args)))
    with pytest.raises(InputError, match="'rnak' is not installed.*Did you mean rank?"):
        make_hooks({"rnak": {"every": 3}}, criterion, context)
    with pytest.raises(InputError, match="`hooks.rank` is not valid: .*'evry'"):
        make_hooks({"rank": {"evry": 3}}, criterion, context)
    assert make_hooks({"rank": {"every": 3, "probe_every": 2}}, criterion, context) == {}
    assert warned == []
    monkeypatch.setattr(hooks, "load", lambda group, name: Silent)
    assert make_hooks({"rank": {}, "silent": {"often": 2}}, criterion, context) == {}
    (text,) = warned
    assert text.startswith("`hooks.silent` does nothing: the criterion has no queues")


def test_records_that_fit_no_report_are_warned_of() -> None:
    """Of every 30 steps, with a report every 20, every 60 were recorded."""
    regime = RegimeSection(publish_metrics_every_n_steps=20, num_steps=110)
    for every in (30, 7, 120 + 10):
        (told,) = lost_records({"rank": {"every": every}}, regime)
        assert told.startswith(f"`hooks.rank.every` is {every}, but there are reports every 20")
    for every in (1, 5, 20, 100, 110):
        assert not list(lost_records({"rank": {"every": every}}, regime))
    assert not list(lost_records({"rank": None}, regime))
    regime.publish_metrics_every_n_data_epochs = 1  # epochs may have any number of steps
    assert not list(lost_records({"rank": {"every": 7}}, regime))
