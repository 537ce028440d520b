"""The bench of negatives: what it plans, what it keeps, and what its tables say."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from negatives_rows import row
from scene_folders import write_classes
from scipy import stats

from atr_moco_plugin.criterion import Atc, MocoAtc
from atr_moco_plugin.errors import InputError
from benchmarks.negatives import figures, intervals, plan, predictors, tables
from benchmarks.negatives.__main__ import main
from benchmarks.negatives.code import digest, text_of
from benchmarks.negatives.data import DATA
from benchmarks.negatives.held_out import contrastive_loss
from benchmarks.negatives.plan import Run
from benchmarks.negatives.prices import Price, count_memory
from benchmarks.negatives.rows import RowFile, finite, is_stale, rate_file, row_file
from benchmarks.negatives.running import Bench, recipe_options
from benchmarks.negatives.variants import VARIANTS, Variant, criterion_options, why_not_there
from benchmarks.negatives.workers import Workers


def test_an_interval_is_that_of_students_t() -> None:
    x = [3.0, 5.0, 4.0, 8.0]
    low, high = stats.t.interval(0.95, 3, np.mean(x), stats.sem(x))
    found = intervals.mean(x)
    assert found.value == 5.0
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)
    assert intervals.mean([3.0]).text() == "3.0"


@pytest.mark.slow
def test_memory_of_a_step_is_counted() -> None:
    names = ("atc", "moco_atc", "moco_atc, keys online")
    found = [
        count_memory(VARIANTS[name], criterion_options(VARIANTS[name], 0.99), 2) for name in names
    ]
    atc, momentum, online = (x or 0.0 for x in found)
    assert atc > 1_000 and momentum > atc + 500  # MiB; the momentum copies are 198 M weights
    assert atc < online < atc + 10


def test_a_rank_correlation_with_ties() -> None:
    x, y = [1.0, 2.0, 2.0, 4.0, 0.5], [2.0, 1.0, 3.0, 3.0, 0.0]
    assert intervals.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert math.isnan(intervals.spearman([1.0, 1.0], [1.0, 2.0]))


def test_what_holds_across_criteria_may_not_hold_within_one() -> None:
    rows = [
        row(name, seed, 300 + 50 * level + 5 * seed, measures={"up": 10 * level - seed, "same": 1})
        for level, name in enumerate(("atc", "dcl", "moco_atc"))
        for seed in range(4)
    ]
    by_name = {x.measure: x for x in predictors.predictions(rows)}
    assert by_name["up"].across.value > 0.7
    assert by_name["up"].within is not None and by_name["up"].within.value == pytest.approx(-1)
    assert by_name["valid_r_sum"].across.value == pytest.approx(1)
    assert "same" not in by_name
    assert "R-sum of the last validation" in predictors.report(rows)


def test_a_run_that_is_another_one_over_again_counts_once() -> None:
    rows = [row("atc", seed, 300.0 + seed) for seed in range(4)]
    rows += [row("atc, clip_or_caption", seed, 300.0 + seed) for seed in range(4)]
    assert predictors.distinct(rows) == rows[:4]
    assert " 4 |" in predictors.report(rows) and " 8 |" not in predictors.report(rows)


def test_too_few_runs_predict_nothing() -> None:
    assert predictors.report([row("atc", 0, 300.0)]) == "No data has 4 runs yet."


def test_differences_are_of_equal_seeds() -> None:
    rows = [row("atc", seed, 400.0 + 10 * seed) for seed in range(3)]
    rows += [row("moco_atc", seed, 420.0 + 10 * seed) for seed in (1, 2, 7)]
    again = {"test": {"r_sum": 441.0}}
    rows.append(row("moco_atc_atm", 1, 430.0, reranked=again, start=40))
    reference = {x["seed"]: x for x in rows[:3]}
    found = tables.difference(rows[3:6], reference)
    assert found is not None and tuple(found) == (20.0, 20.0, 20.0)
    printed = tables.report(rows, {"moco_atc_atm": {"8": 2048.0}})
    assert "### toy, batch 8" in printed
    line = next(x for x in printed.splitlines() if "moco_atc_atm" in x)
    assert "| 2.00 |" in " ".join(line.split())
    assert "+20.0" in line and "441.0 | +31.0" in " ".join(line.split())
    # The most wanted come first, whatever the order of the rows.
    names = [x.split("|")[1].strip().strip("\\*") for x in printed.splitlines() if x[:1] == "|"][2:]
    assert names == ["atc", "moco_atc", "moco_atc_atm"]


def test_scenes_of_seen_recordings_have_a_table_of_their_own() -> None:
    rows = []
    for name, gain in (("atc", 0.0), ("moco_atc_atm", 20.0)):
        rows.append(row(name, 0, 150.0, data="scenes"))
        rows[-1]["dual"]["seen"] = {"r_sum": 300.0 + gain}
    rows[-1]["reranked"] = {"test": {"r_sum": 140.0}, "seen": {"r_sum": 333.0}}
    printed = tables.report(rows)
    title = "### scenes, batch 8: scenes of the training recordings"
    first, second = printed.split(title)
    assert "140.0 | -10.0" in " ".join(first.split()) and "300.0" not in first
    cells = " ".join(second.split())
    assert "| moco_atc_atm | 1 | 320.0 | +20.0 | 333.0 | +33.0 |" in cells
    assert "training recordings" not in tables.report([row("atc", 0, 150.0)])


def test_a_figure_of_each_data(tmp_path: Path) -> None:
    rows = [row(name, seed, 400.0 + seed) for name in ("atc", "dcl") for seed in range(2)]
    (file,) = figures.draw(rows, tmp_path)
    assert file.name == "negatives_toy_8.svg" and "<svg" in file.read_text()
    late = row("moco_atc_atm", 0, 400.0, start=50)
    late["price"] = {"seconds": 0.03, "waiting": 0.01}
    times = [x[0] for x in figures.points([late])]
    assert times == pytest.approx([0.125, 0.25, 0.625, 1.0])


def test_steps_fill_the_time_of_the_reference() -> None:
    prices = {"atc": Price(0.02), "moco_atc": Price(0.03), "late": Price(0.04, waiting=0.02)}
    seconds = plan.budget(prices, "toy", 8)
    assert seconds == pytest.approx(64.0)
    atc, queue = (Run("toy", name, 8, 0) for name in ("atc", "moco_atc"))
    assert plan.steps(atc, prices["atc"], seconds, 0) == 3_200
    assert plan.steps(queue, prices["moco_atc"], seconds, 0) == 2_128
    at_once = Run("toy", "moco_atc_atm, start 0", 8, 0)
    assert plan.steps(at_once, prices["late"], seconds, 1_000) == 2_096
    assert prices["late"].spent(2_096, 1_000) == pytest.approx(64.0, rel=0.01)
    # Never begun: all steps are cheap.
    auto = Run("toy", "moco_atc_atm", 8, 0)
    assert plan.steps(auto, prices["late"], seconds, 10_000) == 3_200
    assert prices["late"].spent(3_200, 10_000) == pytest.approx(64.0)
    # `auto` waits for the last part, whatever earlier runs had.
    made = plan.steps(auto, prices["late"], seconds, 0)
    assert prices["late"].spent(made, round(0.6 * made)) == pytest.approx(64.0, rel=0.01)


def test_runs_come_seed_after_seed_with_their_searches_before_them() -> None:
    runs = plan.planned(["toy", "scenes"], ["atc", "dcl", "atc, clip_or_caption"], [8], [0, 1])
    names = [(run.data, run.variant, run.seed) for run in runs if run.factor is None]
    assert names[:2] == [("toy", "atc", 0), ("scenes", "atc", 0)]
    assert [seed for *_, seed in names] == [0] * 6 + [1] * 6
    searched = [(run.variant, run.factor) for run in runs if run.factor is not None]
    # Once a criterion, on the toy data alone.
    assert searched == [(name, x) for name in ("atc", "dcl") for x in (0.25, 0.5, 1.0, 2.0)]
    for i, run in enumerate(runs):
        assert all(needed in runs[:i] for needed in run.needs())
    assert len(set(runs)) == len(runs) == len({run.name for run in runs})


def test_options_of_data_are_those_of_the_recipe_and_of_the_evaluation(tmp_path: Path) -> None:
    assert DATA["toy"].data_options(None, tmp_path, {}) == []
    (told,) = DATA["toy"].data_options(None, tmp_path, {"num_train": 3})
    assert told == "dataset.config_overrides.num_train=3"  # they are trained on too
    root = write_classes(tmp_path / "sounds")
    options = DATA["many_scenes"].data_options(root, tmp_path / "cache", {})
    assert f"dataset.cache_dir={tmp_path / 'cache'}" in options
    key = "dataset.config_overrides."
    values = {x.removeprefix(key) for x in options if x.startswith(key)}
    assert values == {f'root="{root}"', "num_train=25600", "num_seen=200", "cache=false"}
    data = DATA["many_scenes"].open(root, {"num_train": 3, "num_valid": 2, "num_test": 1})
    assert {name: len(clips) for name, clips in data.splits.items()} == {
        "train": 3,
        "valid": 2,
        "test": 1,
        "seen": 200,
    }
    assert data.cache


@pytest.mark.parametrize("change", [["--scale", "0.1"], ["--overrides", '{"seed": 3}']])
def test_a_try_is_no_row_of_the_committed_ones(change: list[str]) -> None:
    with pytest.raises(SystemExit, match="make a try: give it --results FOLDER"):
        main(["--data", "toy", "--variants", "atc", *change])


def test_chunks_have_the_rate_of_their_whole_batch_and_no_place_at_the_largest() -> None:
    run = Run("toy", "atc, chunks", 8, 0)
    assert {(x.variant, x.batch) for x in run.needs()} == {("atc", 32)}
    assert not plan.planned(["toy"], ["atc, chunks"], [32], [0])


def test_the_rate_is_that_of_the_best_search(tmp_path: Path) -> None:
    rates = rate_file(tmp_path)
    run = Run("scenes", "moco_atc, alpha 0", 8, 0)
    with pytest.raises(LookupError, match="moco_atc on toy, batch 8"):
        plan.learning_rate(run, rates)
    for factor, score in ((0.5, 300.0), (2.0, 310.0)):
        values = {"data": "toy", "variant": "moco_atc", "batch": 8, "factor": factor}
        rates.add({**values, "valid": [score, score - 20], "start": None})
    assert plan.learning_rate(run, rates) == pytest.approx(1e-3)


def test_the_expected_start_is_that_of_earlier_runs(tmp_path: Path) -> None:
    rows, run = row_file(tmp_path), Run("scenes", "moco_atc_atm", 8, 3)
    assert plan.expected_start(run, rows, late=True) == 0
    for seed, start in ((0, 800), (1, 900), (2, 1_200)):
        rows.add(row("moco_atc_atm", seed, 1.0, data="scenes", start=start))
    assert plan.expected_start(run, rows, late=True) == 900
    assert plan.expected_start(run, rows, late=False) == 0


def test_a_row_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    rows = row_file(tmp_path)
    rows.add(row("atc", 0, 1.0))
    rows.add(row("atc", 1, 2.0))
    file = tmp_path / "rows.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    again = row_file(tmp_path)
    assert [x["seed"] for x in again.all()] == [0]
    again.add(row("atc", 1, 3.0))
    again.add(row("atc", 0, 4.0))  # a later one takes its place
    assert [x["dual"]["test"]["r_sum"] for x in row_file(tmp_path).all()] == [4.0, 3.0]


def test_a_whole_line_that_is_no_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"data": "toy"}\n')
    with pytest.raises(InputError, match="rows.jsonl, line 1"):
        row_file(tmp_path)


def test_numbers_that_json_lacks_become_none() -> None:
    assert json.loads(json.dumps(finite({"a": [math.nan, 1.0], "b": -math.inf}))) == {
        "a": [None, 1.0],
        "b": None,
    }


def test_code_of_another_criterion_has_another_digest() -> None:
    assert digest(Atc) != digest(MocoAtc)
    # The rules of a queue are part of it, its folders' lists of names are not.
    assert "def age_share" in text_of("atr_moco_plugin.rank.age")
    assert text_of("atr_moco_plugin.criterion") == ""
    assert not is_stale(row("atc", 0, 1.0, code=digest(Atc)))
    assert is_stale(row("atc", 0, 1.0, code="of before"))
    assert is_stale(row("atc", 0, 1.0, code=digest(Atc), options={"positives": "clip"}))
    assert is_stale(row("of another version", 0, 1.0))


def test_variants_without_their_code_are_left_out_with_a_reason() -> None:
    assert why_not_there(VARIANTS["moco_atc"], 0.9) is None
    assert "nothing" in str(why_not_there(Variant("x", "nothing"), 0.9))
    assert "no_option" in str(why_not_there(Variant("x", "atc", {"no_option": 1}), 0.9))


def test_options_are_those_that_the_criterion_has() -> None:
    assert criterion_options(VARIANTS["atc"], 0.9) == {
        "positives": "pair",
        "temperature_min": 0.05,
    }
    options = criterion_options(VARIANTS["moco_atc, queue 0"], 0.9)
    assert (options["queue_size"], options["momentum"]) == (0, 0.9)


def test_a_run_leaves_no_option_of_its_criterion_to_the_recipe(tmp_path: Path) -> None:
    bench = Bench(tmp_path, row_file(tmp_path), rate_file(tmp_path), {}, {})
    options = criterion_options(VARIANTS["moco_atc_atm"], 0.9)
    made = {"criterion": "moco_atc_atm", "options": options, "pairs": 8, "lr": 1.0, "steps": 16}
    stated = recipe_options(bench, Run("toy", "moco_atc_atm", 8, 0), made)
    assert "criterion.config.atm_every=1" in stated  # the recipe has 2
    assert "criterion.config.momentum=0.9" in stated


def test_a_loss_of_several_positives() -> None:
    scores = torch.tensor([[0.5, 0.2, -0.1], [0.0, 0.3, 0.9]])
    relevance = torch.tensor([[True, True, False], [False, False, True]])
    logits = scores.double() / 0.1
    rows = logits.log_softmax(1)
    columns = logits.log_softmax(0)
    a2t = -((rows[0, 0] + rows[0, 1]) / 2 + rows[1, 2]) / 2
    t2a = -(columns[0, 0] + columns[0, 1] + columns[1, 2]) / 3
    expected = float(a2t + t2a) / 2
    assert contrastive_loss(scores, relevance, 0.1) == pytest.approx(expected)


def test_a_run_waits_for_those_it_needs_and_one_that_fails_does_not_end_the_others() -> None:
    runs = plan.planned(["toy"], ["atc", "dcl"], [8], [0])
    made: list[Run] = []
    lock = threading.Lock()

    def make(run: Run) -> None:
        with lock:
            assert all(needed in made for needed in run.needs())
            made.append(run)
        if run.variant == "dcl" and run.factor == 0.5:
            raise ValueError("too far")

    workers = Workers(runs, make, lambda text: None)
    workers.work(jobs=3)
    assert sorted(made, key=runs.index) == runs
    assert list(workers.failed.values()) == ["ValueError: too far"]


def test_rows_of_several_threads(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl", ("seed",))
    threads = [threading.Thread(target=rows.add, args=({"seed": i},)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = RowFile(tmp_path / "rows.jsonl", ("seed",))
    assert sorted(x["seed"] for x in again.all()) == list(range(20))
