"""The rank study through its command line, with real runs of a tiny toy recipe."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from scene_folders import write_classes

from atr_moco_plugin.io.stdout import duration
from atr_moco_plugin.recipes.rank_study import load_config, main
from atr_moco_plugin.study.plan import StudyConfig, read_yaml

PRESET = Path(__file__).parents[2] / "recipes" / "rank_study.yaml"
Study = Callable[..., int]


@pytest.fixture(scope="module")
def study(tiny_options: list[str]) -> Study:
    """Run a study of two queue sizes; returns its exit status."""
    options = [x for x in tiny_options if "atm_" not in x]
    runs = [*options, "criterion.name=moco_atc", "evaluation.rerank_k=0"]

    def call(out: Path, *config: str) -> int:
        options = ["queue_sizes=[8,64]", "seeds=[1]", "jobs=2", *(f"config.{x}" for x in runs)]
        return main([str(out), "--config-file", str(PRESET), "--config", *options, *config])

    return call


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert study(out) == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.mark.slow
def test_a_study_trains_every_run_and_shows_them(finished: Path) -> None:
    result = json.loads((finished / "rank_study.json").read_text())
    (variant,) = result["variants"]
    small, large = variant["sizes"]
    assert (small["queue_size"], large["queue_size"]) == (8, 64)
    for size, rows in ((small, 8), (large, 32)):
        assert size["queue"]["audio"]["rows"] == size["queue"]["text"]["rows"] == rows
        assert size["seeds"] == [1] and set(size["r_sum"]) == {"valid", "test"}
        assert [step for step, _ in size["history"]["audio"]] == [1, 2, 3, 4]
    # Of the longer one 32 rows were written, which is nothing to judge it by.
    assert variant["recommended"] is None and "64 rows was never filled" in variant["ground"]
    assert "| 64" in (finished / "rank_study.md").read_text()
    assert (finished / "index.html").is_file()
    assert (finished / "figures" / "spectra.png").is_file()
    for size in (8, 64):
        folder = finished / "runs" / f"q{size}_s1"
        found = read_yaml(folder / "config.yaml")
        assert found["criterion"]["config"]["queue_size"] == size and found["common"]["seed"] == 1
        assert "Retrieval on toy test" in (finished / "runs" / f"q{size}_s1.log").read_text()


@pytest.mark.slow
def test_a_study_of_scenes_has_the_queue_that_grows_beside_it(
    study: Study, tmp_path: Path, capsys
) -> None:
    write_classes(tmp_path / "sounds")
    options = (
        "recipe=scenes", "queue_sizes=[0,8]", "auto=true", "seeds=[1]",
        f"config.dataset.config_overrides.root={tmp_path / 'sounds'}",
        "config.dataset.config_overrides.seconds=2.0",
        "config.criterion.config.queue_min=4", "config.criterion.config.alpha=0.0",
        "config.criterion.config.queue_warmup_steps=0",
    )  # fmt: skip
    assert study(tmp_path / "out", *options) == 0
    result = json.loads((tmp_path / "out" / "rank_study.json").read_text())
    (variant,) = result["variants"]
    assert [size["queue_size"] for size in variant["sizes"]] == [0, 8]
    assert variant["auto"]["seeds"] == [1] and 4 <= variant["auto"]["chosen"][0] <= 30
    assert "`queue_size: auto` ended with" in capsys.readouterr().out
    assert study(tmp_path / "out", *options) == 0
    assert "3 of 3 runs are finished." in capsys.readouterr().out


@pytest.mark.slow
def test_finished_runs_are_not_trained_again(study: Study, out: Path, capsys) -> None:
    files = sorted((out / "runs").rglob("*"))
    before = [path.stat().st_mtime_ns for path in files]
    (out / "rank_study.md").unlink()
    assert study(out) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    assert (out / "rank_study.md").is_file()
    assert "2 of 2 runs are finished." in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_a_failed_one_is_named(
    study: Study, out: Path, capsys
) -> None:
    folder = out / "runs" / "q8_s1"
    expected = json.loads((folder / "retrieval.json").read_text())
    (folder / "retrieval.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step_4")
    (folder / "checkpoints" / "scores" / "step_4.txt").unlink()
    first = (folder / "checkpoints" / "step_2").stat().st_mtime_ns
    broken = out / "runs" / "q16_s1"
    broken.mkdir()
    (broken / "checkpoints").write_text("a file where a folder should be")

    assert study(out, "queue_sizes=[16,8,64]") == 1
    assert json.loads((folder / "retrieval.json").read_text()) == expected
    assert (folder / "checkpoints" / "step_2").stat().st_mtime_ns == first
    said = capsys.readouterr().out
    assert "1 of 3 runs are finished." in said and "q64_s1 starts" not in said
    assert "1 of 2 runs done, about" in said and "2 of 2 runs done." in said
    assert "q16_s1 failed with exit status 1; " in said and "q16_s1.log ends with:" in said
    assert f"    {(out / 'runs' / 'q16_s1.log').read_text().splitlines()[-1]}\n" in said
    result = json.loads((out / "rank_study.json").read_text())
    assert [size["queue_size"] for size in result["variants"][0]["sizes"]] == [8, 64]
    assert result["failed"] == ["q16_s1"]
    assert "Failed and not in here: q16_s1." in (out / "rank_study.md").read_text()


@pytest.mark.slow
def test_another_configuration_is_refused_before_anything_is_trained(
    study: Study, out: Path, capsys
) -> None:
    assert study(out, "config.regime.num_steps=2", "queue_sizes=[16,8]") == 2
    captured = capsys.readouterr()
    assert not (out / "runs" / "q16_s1").exists() and captured.out == ""
    (error,) = captured.err.splitlines()
    assert "`regime.num_steps` was 4 and is 2" in error and "q8_s1" in error


@pytest.mark.slow
def test_runs_of_the_recipe_itself_are_taken_over(study: Study, out: Path, capsys) -> None:
    for overrides in (out / "runs").glob("*/overrides.yaml"):
        overrides.unlink()
    assert study(out) == 0
    assert "2 of 2 runs are finished." in capsys.readouterr().out
    assert study(out, "config.regime.num_steps=2") == 2
    assert "`regime.num_steps` was 4 and is 2" in capsys.readouterr().err


@pytest.mark.slow
def test_without_jobs_nothing_is_trained(study: Study, out: Path, capsys) -> None:
    assert study(out, "jobs=0", "seeds=[1,2]") == 0
    assert "2 of 4 runs are finished." in capsys.readouterr().out
    assert study(out / "nothing", "jobs=0") == 2
    assert "The study has no finished run yet" in capsys.readouterr().err


def test_the_preset_states_the_defaults(capsys) -> None:
    assert load_config(PRESET, []) == StudyConfig()
    assert main(["--dump-config", "--config", "seeds=[5]", "config.a.b=c"]) == 0
    dumped = capsys.readouterr().out
    assert "recipe: toy" in dumped and "- 5" in dumped and "b: c" in dumped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "queue_size=[4]"], "Did you mean `queue_sizes`?"),
        (["--config", "seeds=[a]"], "`rank_study.seeds"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml is not a readable YAML file"),
        ([], "The output folder is missing"),
    ],
)
def test_a_mistake_ends_in_one_line(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("ERROR: ") and message in error


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A study whose only run sleeps, in a process of its own; the ids of both."""
    sleeper = tmp_path / "python"
    sleeper.write_text('#!/bin/sh\necho $$ > "$3.pid"\nexec sleep 60\n')
    sleeper.chmod(0o755)
    child = os.fork()
    if child == 0:
        # As a shell leaves it for what it starts in the background.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.executable = str(sleeper)
        os._exit(main([str(tmp_path / "out"), "--config", "queue_sizes=[8]", "seeds=[0]"]))
    written = tmp_path / "out" / "runs" / "q8_s0.pid"
    until = time.monotonic() + 60
    while not (written.is_file() and written.read_text().endswith("\n")):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the study has started no run")
        time.sleep(0.01)
    run = int(written.read_text())
    yield child, run
    with contextlib.suppress(ProcessLookupError):
        os.kill(run, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_runs_of_a_study_end_with_it(ended: tuple[int, int], number: int) -> None:
    study, run = ended
    os.kill(study, number)
    status = os.waitpid(study, 0)[1]
    if number == signal.SIGKILL:
        assert os.WTERMSIG(status) == number
    else:
        assert os.WEXITSTATUS(status) == 128 + number
    until = time.monotonic() + 5
    while alive(run):
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_studies_in_one_folder_are_refused_and_its_state_is_shown(
    ended: tuple[int, int], tmp_path: Path, capsys
) -> None:
    out = str(tmp_path / "out")
    assert main([out, "--config", "queue_sizes=[8]", "seeds=[0]"]) == 2
    assert f"{out} is in use by process {ended[0]} on " in capsys.readouterr().err
    assert main([out, "--config", "queue_sizes=[8]", "seeds=[0]", "jobs=0"]) == 2
    assert "no finished run yet" in capsys.readouterr().err
    os.kill(ended[0], signal.SIGTERM)
    os.waitpid(ended[0], 0)


def test_a_name_that_is_a_pattern_is_refused(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "a[1]")]) == 2
    assert "takes for a pattern" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_it_is_a_module_to_run() -> None:
    command = [sys.executable, "-m", "atr_moco_plugin.recipes.rank_study", "--dump-config"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.startswith("recipe: toy")


def test_durations_are_readable() -> None:
    assert [duration(s) for s in (4.4, 99, 150, 5_900, 6_100, 36_600)] == [
        "4 s", "99 s", "2 min", "98 min", "1 h 42 min", "10 h 10 min",
    ]  # fmt: skip
