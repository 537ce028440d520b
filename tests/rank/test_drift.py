"""Drift of keys by age."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.rank.drift import KeyDrift, different_items, drift_scalars, same_item

ITEMS, DIM = 5, 6


class Turning:
    """An encoder whose keys at each step are known: they start somewhere and move one way."""

    def __init__(self, fingerprint: str = "a") -> None:
        self.fingerprint = fingerprint
        self.step = self.calls = 0

    def at(self, name: str, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(len(name))
        start, way = torch.randn(2, ITEMS, DIM, generator=generator)
        return torch.nn.functional.normalize(start + 0.05 * step * way, dim=1)

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {name: self.at(name, self.step) for name in ("audio", "text")}


def run(drift: KeyDrift, probe: Turning, steps: range) -> list[object]:
    """The records of each step."""
    records = []
    for probe.step in steps:
        drift.look(probe.step)
        records.append(drift.record())
    return records


def cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """``[P, P]`` in float64, the obvious way."""
    x, y = (t.double().numpy() for t in (a, b))
    unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (x, y)]
    return np.asarray(unit[0] @ unit[1].T)


def test_cosines_of_the_same_and_of_different_items() -> None:
    a, b = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1))
    table = cosines(a, a)
    others = table[~np.eye(7, dtype=bool)].mean()
    assert same_item(a, b) == pytest.approx(np.diag(cosines(a, b)).mean(), abs=1e-9)
    assert different_items(a) == pytest.approx(others, abs=1e-9)
    assert different_items(a[:1]) is None


def test_each_age_has_its_last_comparison() -> None:
    probe = Turning()
    drift = KeyDrift(probe, every=10)
    records = run(drift, probe, range(131))
    assert probe.calls == 14  # at 0, 10, ... 130
    for step in range(131):
        number = step // 10
        ages = [2**k for k in range(5) if 2**k <= number]
        for name in ("audio", "text"):
            source = records[step]["sources"][name]
            assert list(source["same"]) == [str(10 * age) for age in ages]
            for age in ages:
                last = 10 * (number // age * age)
                now, then = probe.at(name, last), probe.at(name, last - 10 * age)
                wanted = np.diag(cosines(now, then)).mean()
                assert source["same"][str(10 * age)] == pytest.approx(wanted, abs=2e-6)
            assert source["different"] == pytest.approx(
                different_items(probe.at(name, 10 * number)), abs=1e-6
            )
    assert {x["every"] for x in records} == {10}


def test_the_keys_kept_grow_with_the_logarithm(tmp_path: Path) -> None:
    path, probe = tmp_path / "rank_probe.npz", Turning()
    drift = KeyDrift(probe, every=1, path=path)
    run(drift, probe, range(300))
    with np.load(path) as file:
        assert len(file.files) <= 2 * (33 + 9) + 1
    assert list(tmp_path.iterdir()) == [path]
    assert "256" in drift.record()["sources"]["audio"]["same"]


@pytest.mark.parametrize("stopped", [0, 41, 95, 103])
def test_a_run_that_goes_on_finds_what_it_would_have_found(tmp_path: Path, stopped: int) -> None:
    probe = Turning()
    whole = run(KeyDrift(probe, 2), probe, range(161))
    path = tmp_path / "rank_probe.npz"
    run(KeyDrift(probe, 2, path), probe, range(104))  # is killed at step 103
    resumed = KeyDrift(probe, 2, path)  # from a checkpoint of the step `stopped`
    assert run(resumed, probe, range(stopped, 161)) == whole[stopped:]


def test_a_run_that_begins_anew_in_an_old_folder_is_not_compared_with_its_model(
    tmp_path: Path,
) -> None:
    probe = Turning()
    run(KeyDrift(probe, 10, tmp_path / "probe.npz"), probe, range(0, 81, 10))
    other = Turning()
    other.at = lambda name, step: -Turning().at(name, step)  # type: ignore[method-assign]
    new = run(KeyDrift(other, 10, tmp_path / "probe.npz"), other, range(0, 41, 10))
    alone = run(KeyDrift(other, 10), other, range(0, 41, 10))
    assert new == alone


def test_a_run_that_goes_back_too_far_leaves_out_what_it_lacks(tmp_path: Path) -> None:
    probe, path = Turning(), tmp_path / "rank_probe.npz"
    whole = run(KeyDrift(probe, 1), probe, range(140))
    run(KeyDrift(probe, 1, path), probe, range(140))
    again = run(KeyDrift(probe, 1, path), probe, range(21, 140))
    for before, after in zip(whole[21:], again, strict=True):
        for name in ("audio", "text"):
            same = after["sources"][name]["same"]
            assert same.items() <= before["sources"][name]["same"].items()
    assert again[-1] == whole[-1]


@pytest.mark.parametrize("other", [(Turning("b"), 2), (Turning("a"), 3)])
def test_keys_of_other_items_or_another_rhythm_are_not_compared(tmp_path: Path, other) -> None:
    path, probe = tmp_path / "rank_probe.npz", Turning()
    run(KeyDrift(probe, 2, path), probe, range(13))
    drift = KeyDrift(other[0], other[1], path)
    assert drift.record() is None
    (record,) = run(drift, other[0], range(12, 13))
    assert record["sources"]["audio"]["same"] == {}


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rank_probe.npz"
    for content in (b"not a zip file", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="remove it, and drift begins anew"):
            KeyDrift(Turning(), 2, path)
    np.savez(path, audio=np.zeros(3))
    with pytest.raises(InputError, match="remove it, and drift begins anew"):
        KeyDrift(Turning(), 2, path)


def test_the_logger_has_the_drift_in_its_records(tmp_path: Path) -> None:
    probe = Turning()
    queue = torch.eye(4, 8)
    logger = RankLogger(
        {"audio": queue}, tmp_path / "rank.jsonl", every=6, probe=probe, probe_every=4
    )
    for probe.step in range(13):
        logger.log(probe.step)
    records = [json.loads(line) for line in (tmp_path / "rank.jsonl").read_text().splitlines()]
    ages = [list(record["drift"]["sources"]["text"]["same"]) for record in records]
    assert ages == [[], ["4"], ["4", "8"]]  # at 0, 6 and 12
    flat = RankLogger.scalars(records[-1])
    source = records[-1]["drift"]["sources"]["audio"]
    assert (flat["audio_same_2x"], flat["audio_different"]) == (
        source["same"]["8"],
        source["different"],
    )
    assert (tmp_path / "rank_probe.npz").exists()
    none = RankLogger({"audio": queue}, probe=probe, probe_every=0)
    assert "drift" not in none.log(0)
    with pytest.raises(InputError, match="probe_every >= 0"):
        RankLogger({"audio": queue}, probe=probe, probe_every=-1)


def test_keys_that_are_not_finite_have_no_cosine() -> None:
    drift = KeyDrift(lambda: {"audio": torch.full((3, 2), float("nan"))}, 1)
    drift.look(0)
    drift.look(1)
    record = {"drift": drift.record(), "sources": {}, "pairs": {}}
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert drift_scalars(record) == {"audio_different": None, "audio_same_1x": None}
    assert RankLogger.scalars(record) == {}
