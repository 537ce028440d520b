"""Runs that died, were stopped, or find their checkpoints damaged."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq2")

from kill_and_resume import OPTIONS, Running, differences, fork, kill_and_resume, run_to_the_end

from atr_moco_plugin.hosts.fairseq2.evaluation.unit import RetrievalEvalUnit
from atr_moco_plugin.hosts.fairseq2.processes import StopRequest
from atr_moco_plugin.hosts.fairseq2.runs import resume
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint

Run = Callable[..., int]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run of 12 steps that nothing disturbed, and the seconds it took."""
    out = tmp_path_factory.mktemp("resume") / "whole"
    return out, run_to_the_end(fork, out, [*OPTIONS, "regime.num_steps=12"])


@pytest.fixture
def copy(whole: tuple[Path, float], tmp_path: Path) -> Path:
    """The same run in a folder of the test's own; its last checkpoints are of steps 10 and 12."""
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"


def file_of(step: Path, part: str) -> Path:
    (file,) = (step / part).rglob("*.pt")
    return file


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda x: x.file_size)
    data[largest.header_offset + 100 + largest.file_size // 2] ^= 1
    file.write_bytes(data)


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def go_on(out: Path) -> str:
    """Run the command again to its end; what it logged."""
    run_to_the_end(fork, out, [*OPTIONS, "regime.num_steps=12"])
    return out.with_suffix(".log").read_text()


def refused(out: Path, *options: str) -> str:
    """Run the command again, which must end in one line of error; that line."""
    status = fork(out, [*OPTIONS, "regime.num_steps=12", *options]).wait(60)
    log = out.with_suffix(".log").read_text()
    (error,) = [line for line in log.splitlines() if " ERROR: " in line]
    assert status == 2 and "Traceback" not in log
    return error


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_bitwise_equal(whole, tmp_path: Path) -> None:
    expected, seconds = whole
    out = tmp_path / "killed"
    seed = random.SystemRandom().randrange(10**6)
    kill_and_resume(fork, out, [*OPTIONS, "regime.num_steps=12"], 4, seconds, seed)
    assert differences(expected, out) == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcl", "siglip", "sogclr", "m_ltm_full"])
def test_a_rival_goes_on_to_the_last_bit(run: Run, tmp_path: Path, name: str) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = (f"criterion.name={name}", "trainer.grad_accumulation.num_batches=2")
    assert run(whole, *options) == 0
    shutil.copytree(whole, stopped)
    for rest in ("step_4", "scores/step_4.txt"):
        path = stopped / "checkpoints" / rest
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (stopped / "retrieval.json").unlink()
    assert run(stopped, *options) == 0
    assert differences(whole, stopped) == []
    saved = torch.load(file_of(stopped / "checkpoints" / "step_4", "model"), weights_only=True)
    if name == "sogclr":
        assert len(saved["clip_sums.ids"]) > 16 and int(saved["clip_sums.data_fingerprint"]) != 0


def test_the_comparison_sees_a_difference(whole, copy: Path) -> None:
    file = file_of(copy / "checkpoints" / "step_12", "model")
    state = torch.load(file, weights_only=True)
    state["audio_queue.embeddings"][3, 1] += 1e-6
    torch.save(state, file)
    with (copy / "rank.jsonl").open("a") as log:
        log.write("{}\n")
    part = file.relative_to(copy)
    assert differences(whole[0], copy) == [f"{part}: .audio_queue.embeddings", "rank.jsonl"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda step: flip_a_bit(file_of(step, "optimizer")), "does not have its checksum"),
        (lambda step: cut_in_half(file_of(step, "model")), "is half-written or damaged"),
        (lambda step: shutil.rmtree(step / "trainer"), "has no trainer state"),
        (lambda step: file_of(step, "data_reader").unlink(), "has no data_reader state"),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_loudly(whole, copy: Path, damage, said) -> None:
    damage(copy / "checkpoints" / "step_12")
    log = go_on(copy)
    (warning,) = [x for x in log.splitlines() if " WARNING: " in x and "step_12" in x]
    assert said in warning and "The run goes on from step_10" in warning
    aside = copy / "checkpoints" / "step_12.damaged"
    assert aside.is_dir() and "kept as step_12.damaged" in warning
    shutil.rmtree(aside)
    assert differences(whole[0], copy) == []


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_code_in_a_checkpoint_is_never_run(copy: Path, tmp_path: Path, part: str) -> None:
    trap = tmp_path / "trap"
    for step in ("step_10", "step_12"):
        torch.save({"x": Payload(trap)}, file_of(copy / "checkpoints" / step, part))
    error = refused(copy)
    assert "cannot go on from its newest checkpoint" in error and "io.open" in error
    assert not trap.exists()
    assert sorted(x.name for x in (copy / "checkpoints").glob("step_*")) == ["step_10", "step_12"]
    # It would have: the trap is one.
    pickle.loads(pickle.dumps(Payload(trap))).close()
    assert trap.exists()


def test_a_state_that_torch_refuses_stops_the_run_until_its_plugin_allows_it(
    copy: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(copy / "checkpoints" / "step_10", "optimizer")
    shutil.rmtree(copy / "checkpoints" / "step_12")
    state = torch.load(file, weights_only=True)
    # What an optimizer of another package might keep.
    state["state"][0]["since"] = datetime(2024, 5, 1)
    torch.save(state, file)
    before = sorted(copy.rglob("checkpoints/**/*"))
    options = [*OPTIONS, "regime.num_steps=12"]
    assert run(copy, *options) == 2
    said = capsys.readouterr().err
    assert f"{file} names `datetime.datetime`" in said and "add_safe_globals" in said
    assert sorted(copy.rglob("checkpoints/**/*")) == before and "damaged" not in said

    with torch.serialization.safe_globals([datetime]):
        assert run(copy, *options) == 0
        after = torch.load(file_of(copy / "checkpoints" / "step_12", "optimizer"))
    assert after["state"][0]["since"] == datetime(2024, 5, 1)
    assert "cannot go on" not in capsys.readouterr().err


def test_a_run_says_at_its_first_checkpoint_that_it_cannot_go_on_from_it(
    copy: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.optim.AdamW.state_dict
    monkeypatch.setattr(
        torch.optim.AdamW, "state_dict", lambda self: {**plain(self), "since": datetime(2024, 5, 1)}
    )
    out = copy / "new"
    assert run(out) == 0
    (warning,) = [x for x in capsys.readouterr().err.splitlines() if "add_safe_globals" in x]
    assert "`datetime.datetime`" in warning and "cannot go on" in warning


def test_a_run_never_begins_anew_in_place_of_one_that_cannot_go_on(copy: Path) -> None:
    checkpoints = copy / "checkpoints"
    for step in checkpoints.glob("step_*"):
        shutil.rmtree(step / "optimizer")
    before = sorted(checkpoints.rglob("*"))
    error = refused(copy)
    assert "step_12, has no optimizer state" in error and "init=RUN" in error
    assert sorted(checkpoints.rglob("*")) == before


@pytest.mark.slow
def test_model_only_checkpoints_are_not_begun_anew(run: Run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "regime.save_model_only=true") == 0
    capsys.readouterr()
    assert run(tmp_path, "regime.save_model_only=true") == 2
    assert "has no trainer state" in capsys.readouterr().err


def test_a_sound_model_alone_is_no_damage(whole, copy: Path) -> None:
    """It was called damaged."""
    step = copy / "checkpoints" / "step_12"
    for part in ("trainer", "optimizer", "data_reader"):
        shutil.rmtree(step / part)
    # One that is not the last again, before which the run's own were deleted where it stayed.
    shutil.copytree(step, step.with_name("step_20"))
    log = go_on(copy)
    for name in ("step_12", "step_20"):
        assert f"{name} has the model alone (`regime.save_model_only`), and the run goes on" in log
        aside = step.with_name(f"{name}.model_only")
        assert f"kept as {aside.name}." in log
        assert find_checkpoint(aside) == (copy, aside)
        shutil.rmtree(aside)
    assert "damaged" not in log
    assert differences(whole[0], copy) == []


@pytest.mark.slow
def test_a_stop_says_that_models_alone_are_not_gone_on_from(
    run: Run, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, False, True])
    monkeypatch.setattr(StopRequest, "agreed", lambda self: next(asked))
    assert run(tmp_path, "regime.save_model_only=true") == 0
    said = capsys.readouterr().err
    assert "Stopped on request at step 2; a new run with `init=" in said
    assert "same command goes on" not in said


def test_another_number_of_processes_is_refused(copy: Path) -> None:
    step = copy / "checkpoints" / "step_12"
    for part, name in (("trainer", "rank_01.pt"), ("data_reader", "dp_01.pt")):
        file = file_of(step, part)
        shutil.copy(file, file.with_name(name))
    error = refused(copy)
    assert "saved by 2 process(es), but this run has 1" in error and "init=" in error


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("dataset.batch_size=6", "batch_size was 8 and is 6"),
        ("dataset.config_overrides.num_train=29", "fingerprint was"),
        ("dataset.captions=all", "captions was 'random' and is 'all'"),
    ],
)
def test_what_a_run_cannot_go_on_with_is_refused(copy: Path, option: str, said: str) -> None:
    error = refused(copy, option)
    assert said in error and "needs another folder" in error


class Refused(Running):
    """A start that ends with status 2 before any moment."""

    def __init__(self) -> None:
        pass

    def wait(self, seconds: float) -> int | None:
        return 2


def test_a_start_that_is_refused_is_no_end_of_a_run(tmp_path: Path) -> None:
    """A resume that failed was taken for a run that was faster than the kill."""
    out = tmp_path / "out"
    out.mkdir()
    out.with_suffix(".log").write_text("12:00 ERROR: fairseq2 - The run cannot go on.")
    with pytest.raises(AssertionError, match="exit status 2\n.*The run cannot go on"):
        kill_and_resume(lambda *_: Refused(), out, [], 1, 1.0, 0)
    assert out.is_dir()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("regime.num_steps=16", "cycle_len was"),
        ("lr_scheduler.config.num_warmup_steps=7", "num_warmup_steps was"),
        ("optimizer.config.weight_decay=0.2", "weight_decay of parameter group"),
    ],
)
def test_another_optimizer_or_schedule_is_refused(copy: Path, option: str, said: str) -> None:
    if "warmup" not in option:  # of a whole run too
        shutil.rmtree(copy / "checkpoints" / "step_12")
    error = refused(copy, option)
    assert said in error and "it began with" in error


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("criterion.config.momentum=0.5", "criterion.config.momentum was"),
        ("criterion.config.positives=pair", "positives was clip_or_caption and is pair"),
        ("trainer.grad_accumulation.num_batches=2", "num_batches was 1 and is 2"),
        ("trainer.max_grad_norm=0.1", "max_grad_norm was"),
        ("tokenizer.vocab_size=60", "the vocabulary of the tokenizer"),
        ("tokenizer.max_tokens=5", "max_tokens was"),
    ],
)
def test_other_settings_are_refused(copy: Path, option: str, said: str) -> None:
    """A run went on with a mixture of two, whole ones were evaluated with the wrong tokenizer, and
    `config.yaml` told of the new one alone."""
    if "max" in option:
        shutil.rmtree(copy / "checkpoints" / "step_12")
    files = [copy / "config.yaml", *(copy / "tokenizer").iterdir()]
    before = {file: file.read_bytes() for file in files}
    error = refused(copy, option)
    assert said in error and "start a new run from its weights" in error
    assert {file: file.read_bytes() for file in files} == before


@pytest.mark.slow
def test_a_run_can_be_made_longer_where_its_schedule_does_not_hang_on_its_length(
    run: Run, tmp_path: Path, capsys
) -> None:
    schedule = ("lr_scheduler.config.cycle_len=20", "lr_scheduler.config.num_warmup_steps=1")
    schedule += ("criterion.config.momentum_schedule=cosine",)
    assert run(tmp_path, *schedule) == 0
    assert "goes on with" not in capsys.readouterr().err
    assert run(tmp_path, *schedule, "regime.num_steps=6") == 0
    assert (tmp_path / "checkpoints" / "step_6").is_dir()
    # The momentum was to be 1 in the end of the shorter run.
    said = " ".join(capsys.readouterr().err.split())
    assert "goes on with 6, which moves what goes by its length: the momentum factor" in said


@pytest.mark.parametrize("size", [24, 56])
def test_another_queue_size_keeps_the_newest_rows(copy: Path, run: Run, size: int) -> None:
    shutil.rmtree(copy / "checkpoints" / "step_12")
    before = torch.load(file_of(copy / "checkpoints" / "step_10", "model"), weights_only=True)
    options = [x for x in OPTIONS if "queue_size" not in x]
    assert run(copy, *options, f"criterion.config.queue_size={size}", "regime.num_steps=12") == 0
    after = torch.load(file_of(copy / "checkpoints" / "step_12", "model"), weights_only=True)

    # Two steps of 8 pairs; what is left of the rows before them are the newest of those.
    count, following = before["audio_queue.position"][:2].tolist()
    assert count == 40
    newest = before["audio_queue.clip_ids"].roll(-following)[-(size - 16) :]
    count, following = after["audio_queue.position"][:2].tolist()
    assert (count, len(after["audio_queue.clip_ids"])) == (size, size)
    assert torch.equal(after["audio_queue.clip_ids"].roll(-following)[:-16][-len(newest) :], newest)


@pytest.mark.slow
def test_a_stop_on_request_saves_and_the_run_goes_on(whole, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    running = fork(out, [*OPTIONS, "regime.num_steps=12"])
    while not list((out / "checkpoints").glob("step_*")):
        assert running.wait(0.01) is None
    os.kill(running.pid, signal.SIGUSR1)
    assert running.wait(60) == 0
    log = out.with_suffix(".log").read_text()
    assert "Stopped on request at step" in log and not (out / "retrieval.json").exists()
    last = max(int(x.name[5:]) for x in (out / "checkpoints").glob("step_*"))
    assert last < 12 and f"at step {last};" in log
    go_on(out)
    assert differences(whole[0], out) == []


@pytest.mark.slow
def test_a_checkpoint_is_in_its_place_only_with_its_score(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed in between would go on from it without ever validating it."""
    seen = []
    evaluate = RetrievalEvalUnit.evaluate

    def look(unit: RetrievalEvalUnit, **options: bool) -> None:
        time.sleep(0.3)  # time to write the checkpoint
        seen.append(sorted(x.name for x in (tmp_path / "checkpoints").glob("step_?")))
        evaluate(unit, **options)

    monkeypatch.setattr(RetrievalEvalUnit, "evaluate", look)
    assert run(tmp_path) == 0
    assert seen[:2] == [[], ["step_2"]]


@pytest.mark.slow
def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(whole, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the same writes fail."""
    out = tmp_path / "full"
    part = file_of(whole[0] / "checkpoints" / "step_12", "model")
    limit = part.stat().st_size - 1_000
    running = fork(out, [*OPTIONS, "regime.num_steps=12"], file_limit=limit)
    assert running.wait(60) == 2
    log = out.with_suffix(".log").read_text()
    (error,) = [line for line in log.splitlines() if " ERROR: " in line]
    assert "File too large; the run stops at step" in error and "Traceback" not in log
    assert "Nothing was saved" in error
    go_on(out)
    assert differences(whole[0], out) == []


def test_an_output_folder_that_cannot_be_written(tmp_path: Path, run: Run, capsys) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run(file / "out") != 0
    written = capsys.readouterr().err
    assert "Traceback" not in written
    (error,) = [line for line in written.splitlines() if " ERROR: " in line]
    assert error.endswith(f"Not a directory: {file / 'out'}")


def test_records_of_every_hook_are_dropped_where_they_are_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of other hooks than ``rank`` were there twice after a resume."""
    files = [tmp_path / name for name in ("rank.jsonl", "acme.jsonl", "mine.jsonl")]
    for file in files:
        file.write_text('{"step": 0}\n{"step": 3}\n')
    monkeypatch.setattr(resume, "available", lambda group: {"rank": None, "acme": None})
    root = SimpleNamespace(size=1, rank=0, device=torch.device("cpu"))
    gangs: Any = SimpleNamespace(root=root, sdp=SimpleNamespace(size=1))
    resume.prepare_resume(tmp_path, tmp_path / "checkpoints", gangs)
    assert [len(file.read_text().splitlines()) for file in files] == [1, 1, 2]
