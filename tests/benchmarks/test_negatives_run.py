"""A run of the bench of negatives in miniature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import TINY_TOY_RECIPE
from safetensors.torch import load_file

from benchmarks.negatives.__main__ import main
from benchmarks.negatives.rows import rate_file, row_file

SMALL = {"num_train": 30, "num_valid": 6, "num_test": 6}
OPTIONS = [
    x for x in TINY_TOY_RECIPE if not x.startswith(("report", "regime", "evaluation", "dataset."))
]


@pytest.mark.slow
def test_from_prices_to_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    rates = rate_file(results)
    for factor in (0.25, 0.5, 1.0, 2.0):
        # Whose rate is taken.
        values = {"data": "toy", "variant": "moco_atc", "batch": 8, "factor": factor}
        rates.add({**values, "valid": [factor], "start": None})
    command = [str(out), "--results", str(results), "--data", "toy"]
    command += ["--variants", "moco_atc_atm", "--seeds", "0", "--rounds", "1", "--scale", "0.005"]
    command += ["--overrides", json.dumps(SMALL), "--options", *OPTIONS]
    command.append("lr_scheduler.config.num_warmup_steps=1")
    assert main(command) == 0
    printed = capsys.readouterr().out
    (row,) = row_file(results).all()
    assert row["lr"] == pytest.approx(1e-3)  # the search came furthest with twice the rate
    assert row["steps"] % 16 == 0 and len(row["valid"]) == 4
    assert row["dual"]["test"]["r_sum"] > 0 and row["dual"].keys() == {"test"}
    assert row["reranked"] is None or row["reranked"]["test"]["r_sum"] > 0
    assert {"valid_loss", "valid_own_loss", "queue_audio_rankme"} <= row["measures"].keys()
    assert set(json.loads((results / "prices.json").read_text())["toy"]["8"]) == {
        "atc",
        "moco_atc_atm",
    }
    folder = out / "runs/toy_8/moco_atc_atm/seed_0"
    shapes = {name: len(x) for name, x in load_file(folder / "embeddings.safetensors").items()}
    assert shapes == {"valid_audio": 6, "valid_text": 30, "test_audio": 6, "test_text": 30}
    # What is there is not run again, and the table alone says the same.
    modified = (results / "rows.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    assert main(["--results", str(results), "--table"]) == 0
    assert capsys.readouterr().out == printed * 2
    assert (results / "rows.jsonl").stat().st_mtime_ns == modified
    assert row["tried"]["scale"] == 0.005 and row["tried"]["overrides"] == SMALL
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["dataset"]["config_overrides"].items() >= SMALL.items()
    with pytest.raises(SystemExit, match="has rows of runs with other --scale, --options or"):
        main([*command, "common.seed=1"])


@pytest.mark.slow
def test_a_second_stage_goes_on_from_its_teacher(tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    rates = rate_file(results)
    for factor in (0.25, 0.5, 1.0, 2.0):
        values = {"data": "toy", "variant": "atc", "batch": 8, "factor": factor}
        rates.add({**values, "valid": [factor], "start": None})
    command = [str(out), "--results", str(results), "--data", "toy", "--seeds", "0", "--rounds"]
    command += ["1", "--scale", "0.005", "--overrides", json.dumps(SMALL), "--options"]
    command += [x for x in OPTIONS if not x.startswith("criterion.")]
    command += ["lr_scheduler.config.num_warmup_steps=1", "--variants"]
    assert main([*command, "atc"]) == 0
    shutil.rmtree(out)  # only its row is left, which teaches nobody
    assert main([*command, "atc, own teacher"]) == 0
    first, second = row_file(results).all()
    assert (first["variant"], second["variant"]) == ("atc", "atc, own teacher")
    assert second["spent"] > 1.5 * first["spent"]
    folder = out / "runs/toy_8/atc_own_teacher/seed_0"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    teacher = str(out / "runs/toy_8/atc/seed_0")
    assert config["init"] == teacher and config["criterion"]["config"]["teachers"] == [teacher]
    assert config["criterion"]["config"]["supervised_weight"] == 0
