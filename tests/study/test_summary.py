from __future__ import annotations

import json
from pathlib import Path

import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.rank.growth import Growth
from atr_moco_plugin.rank.random_vectors import random_baseline
from atr_moco_plugin.study.findings import Seeds, Step
from atr_moco_plugin.study.results import read_run
from atr_moco_plugin.study.runner import is_finished
from atr_moco_plugin.study.summary import aggregate
from atr_moco_plugin.study.tables import notes, size_label, variant_tables, variant_title
from atr_moco_plugin.study.verdict import verdict


@pytest.fixture
def folders(make_run, tmp_path: Path) -> list[Path]:
    """Eight directions, so that a queue of 16 rows has them all."""
    r_sums = {0: (290, 310), 8: (300, 310), 16: (320, 330), 64: (331, 323), 2048: (310, 311)}
    return [
        make_run(tmp_path / f"q{size}_s{seed}", size, seed, float(r_sum))
        for size, values in r_sums.items()
        for seed, r_sum in enumerate(values)
    ]


def test_means_and_spreads_by_hand(folders) -> None:
    study = aggregate(reversed(folders))
    assert (study.valid_split, study.train_pairs, dict(study.chance)) == (
        "valid", 1_000, {"valid": 50.0, "test": 50.0},
    )  # fmt: skip
    (variant,) = study.variants
    assert [size.queue_size for size in variant.sizes] == [0, 8, 16, 64, 2048]
    size = variant.sizes[2]
    assert size.seeds == (0, 1)
    valid, test = size.r_sum["valid"], size.r_sum["test"]
    assert (valid.values, valid.mean, test.mean) == ((320.0, 330.0), 325.0, 305.0)
    assert valid.std == pytest.approx(50**0.5)
    assert str(valid) == "325.0 ± 7.1"

    files = [folder / "rank.jsonl" for folder in folders[4:6]]
    lines = [json.loads(file.read_text().splitlines()[-1]) for file in files]
    ranks = [line["sources"]["text"]["centered"]["rankme"] for line in lines]
    found = size.queue["text"]
    assert found.measures["rankme_centered"].values == tuple(ranks)
    assert (found.rows, found.dim) == (16, 32)
    assert found.random["rankme_centered"] == random_baseline(16, 32, center=True).rankme
    assert found.random["rankme_raw"] == random_baseline(16, 32).rankme
    spectra = [line["sources"]["text"]["centered"]["spectrum"] for line in lines]
    assert found.spectrum[3] == pytest.approx((spectra[0][3] + spectra[1][3]) / 2)
    assert [step for step, _ in size.history["text"]] == [1, 2, 3, 4]
    assert size.history["text"][-1][1] == pytest.approx(sum(ranks) / 2)
    assert size.held_out["text"].rows == 90


def test_the_recommended_size_and_its_ground(folders) -> None:
    study = aggregate(folders)
    (variant,) = study.variants
    steps = {step.sizes: step for step in variant.steps}
    assert [step.worth_it for step in variant.steps] == [True, False, False]
    sizes = {size.queue_size: size for size in variant.sizes}
    ranks = [sizes[n].queue["audio"].measures["rankme_centered"].mean for n in (16, 64)]
    gain = (ranks[1] / ranks[0]) ** 0.5 - 1
    assert steps[16, 64].modalities["audio"].gain == pytest.approx(gain)
    assert variant.recommended is sizes[16] and variant.best("valid") is sizes[64]
    heading, ground = verdict(study, variant)
    assert heading == "Recommended queue size: 16."
    assert f"from 16 to 64 rows the centred RankMe gains {100 * gain:.1f} % (audio" in ground
    assert "327.0 ± 5.7 with 64 rows and 325.0 ± 7.1 with the recommended 16 rows" in ground
    assert "a difference of 2.0, where that of two runs has a spread of 9.1, so" in ground


def test_queues_longer_than_an_epoch_and_queues_that_were_never_filled(folders, make_run, tmp_path):
    folders.append(make_run(tmp_path / "long", 5_000, 0))
    sizes = aggregate(folders).variants[0].sizes
    assert [size.exceeds_training for size in sizes] == [False] * 4 + [True] * 2
    assert [size.filled for size in sizes] == [True] * 5 + [False]
    unknown = make_run(tmp_path / "unknown", 8, 7, train_pairs=None)
    assert aggregate([unknown]).variants[0].sizes[0].exceeds_training is None


def test_a_queue_that_was_never_filled_is_not_judged(make_run, tmp_path: Path) -> None:
    """What 70 rows gain over 64 was told as what 4,096 rows gain."""
    runs = [make_run(tmp_path / f"q{size}", size, 0, rows=80) for size in (8, 16, 64, 4_096)]
    study = aggregate(runs)
    (variant,) = study.variants
    assert [step.sizes for step in variant.steps] == [(8, 16), (16, 64)]
    heading, ground = verdict(study, variant)
    assert heading == "Recommended queue size: 16." and "from 16 to 64 rows" in ground
    alone = aggregate(runs[2:])
    heading, ground = verdict(alone, alone.variants[0])
    assert heading == "No recommendation." and "not worth it" not in ground
    assert "The queue of 4,096 rows was never filled (80 rows were written): train lo" in ground
    growing = [make_run(tmp_path / f"g{size}", size, 0, rows=80) for size in (4, 8)]
    longer = aggregate([*growing, runs[3]])
    heading, ground = verdict(longer, longer.variants[0])
    assert heading == "Recommended queue size: 8." and "The step to it was worth it" in ground
    assert "4,096 rows was never filled" in ground and "longest queue tried" not in ground


def test_rows_that_stay_out_of_the_loss_are_told(make_run, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"q{size}_s{seed}", size, seed, in_loss=rows - seed)
        for size, rows in ((16, 16), (64, 64), (256, 65))
        for seed in (0, 1)
    ]
    study = aggregate([*runs, make_run(tmp_path / "q512", 512, 0)])  # which says nothing
    sizes = study.variants[0].sizes
    assert [size_label(size) for size in sizes] == ["16", "64", "256‡", "512"]
    (note,) = (x for x in notes(study) if x.startswith("‡"))
    assert "at most 65 of 256: the older ones tell their age" in note


def test_a_queue_that_fills_in_the_last_report_has_all_its_rows_in_the_loss(
    make_run, tmp_path: Path
) -> None:
    """The mean of its rows was taken for rows that stay out."""
    for number, options in enumerate(({"fills": 0.7}, {"warmup": 0})):
        run = make_run(tmp_path / str(number), 64, number, in_loss=60, **options)
        (size,) = aggregate([run]).variants[0].sizes
        assert size_label(size) == "64"


def test_without_two_sizes_there_is_no_recommendation(make_run, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"q{size}", size, 0) for size in (0, 8)]
    study = aggregate(folders)
    assert study.variants[0].recommended is None
    heading, ground = verdict(study, study.variants[0])
    assert heading == "No recommendation." and "needs two above 0" in ground


def test_retrieval_that_disagrees_is_told(make_run, tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"q{size}_s{seed}", size, seed, r_sum + seed)
        for size, r_sum in ((16, 300.0), (64, 340.0), (256, 340.5))
        for seed in (0, 1)
    ]
    study = aggregate(folders)
    assert "so by retrieval the other size is better" in verdict(study, study.variants[0])[1]
    single = aggregate(folders[::2])
    assert "one seed has no spread" in verdict(single, single.variants[0])[1]
    agreeing = aggregate(folders[:2] + [make_run(tmp_path / "low", 64, 0, 200.0)])
    assert "with 16 rows, which agrees" in verdict(agreeing, agreeing.variants[0])[1]
    growing = aggregate([make_run(tmp_path / f"g{n}", n, 0) for n in (4, 8)])
    assert "a longer one may be worth it too" in verdict(growing, growing.variants[0])[1]


def test_intervals_of_the_mean_over_seeds(folders) -> None:
    (variant,) = aggregate(folders).variants
    figure = variant.sizes[2].r_sum["valid"]  # 320 and 330
    # Student's t with one degree of freedom: 12.706 * sqrt(50 / 2).
    assert figure.interval == pytest.approx((325 - 63.531, 325 + 63.531), abs=1e-2)
    assert Seeds.of([3.0]).interval is None


@pytest.mark.parametrize(
    ("r_sums", "answer"),
    [
        ((330.0, 331.0, 340.0), "it chose within the interval of the best"),
        ((310.0, 311.0, 312.0), "it chose worse than the best"),
        ((350.0, 351.0, 352.0), "it chose better than any size that was tried"),
    ],
)
def test_auto_is_compared_with_the_best_size_by_seed(
    make_run, tmp_path: Path, r_sums: tuple[float, ...], answer: str
) -> None:
    folders = [
        make_run(tmp_path / f"q{size}_s{seed}", size, seed, r_sum + seed)
        for size, r_sum in ((16, 300.0), (64, 330.0))
        for seed in (0, 1, 2)
    ]
    chosen = zip((32, 64, 16), r_sums, strict=True)
    folders += [
        make_run(tmp_path / f"qauto_s{seed}", size, seed, r_sum, auto=True)
        for seed, (size, r_sum) in enumerate(chosen)
    ]
    study = aggregate(folders)
    (variant,) = study.variants
    assert [size.queue_size for size in variant.sizes] == [16, 64]
    assert variant.auto is not None and variant.auto.chosen == (32, 64, 16)
    beside = variant.auto.beside(variant.sizes[1], "valid")
    assert beside is not None
    wanted = [r_sum - 330 - seed for seed, r_sum in enumerate(r_sums)]
    assert beside.values == pytest.approx(wanted)
    ground = verdict(study, variant)[1]
    assert "`queue_size: auto` ended with 32, 64, 16 rows and an R-sum of " in ground
    assert ground.endswith(f" beside 64 rows, seed by seed: {answer}.")
    found = study.to_dict()["variants"][0]["auto"]
    assert found["beside_best"]["values"] == beside.values
    table = next(variant_tables(study, variant))
    assert table.rows[-1][0] == "auto: 32 64 16" and "[" in table.rows[-1][1]
    alone = aggregate([*folders[:6], folders[6]])
    assert "fewer than two seeds in common" in verdict(alone, alone.variants[0])[1]


def test_online_keys_are_compared_apart(make_run, tmp_path: Path) -> None:
    study = aggregate(
        make_run(tmp_path / f"q{size}_{keys}", size, 0, keys=keys)
        for size in (8, 16)
        for keys in (None, "online")
    )
    titles = [variant_title(variant) for variant in study.variants]
    assert titles == ["Momentum 0.95, positives clip", "Online keys, positives clip"]


def test_momenta_are_compared_apart(make_run, tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"q{size}_m{momentum}", size, 0, momentum=momentum)
        for size in (8, 16)
        for momentum in (0.9, 0.5)
    ]
    study = aggregate(folders)
    assert [variant.momentum for variant in study.variants] == [0.5, 0.9]
    assert all(len(variant.sizes) == 2 for variant in study.variants)


def test_json_has_everything(folders) -> None:
    found = json.loads(json.dumps(aggregate(folders).to_dict(), allow_nan=False))
    (variant,) = found["variants"]
    assert (variant["recommended"], variant["best_r_sum"]) == (16, 64)
    assert variant["steps"][1]["worth_it"] is False
    assert variant["sizes"][1]["r_sum"]["valid"]["values"] == [300.0, 310.0]
    assert len(variant["sizes"][1]["queue"]["audio"]["spectrum"]) == 8


def test_what_cannot_be_read_is_named(make_run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run"):
        aggregate([])
    folder = make_run(tmp_path / "q8_s0", 8, 0)
    with pytest.raises(ValueError, match="q8_s0 and q8_s0 are runs of one configuration"):
        aggregate([folder, folder])
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("queue_size: 8", "queue_size: auto"))
    with pytest.raises(ValueError, match="q8_s0 has no run of a fixed queue size beside it"):
        aggregate([folder])
    rank = (folder / "rank.jsonl").read_text()
    (folder / "rank.jsonl").unlink()
    with pytest.raises(ValueError, match="q8_s0.*queue_size is auto, but rank.jsonl does not say"):
        read_run(folder)
    (folder / "rank.jsonl").write_text(rank)
    (folder / "config.yaml").write_text(config.replace("queue_size: 8", ""))
    with pytest.raises(ValueError, match="'criterion.config.queue_size' is not in its files"):
        read_run(folder)
    result = json.loads((folder / "retrieval.json").read_text())
    result["failed"] = {"test": "clip 'a.wav' is damaged"}
    (folder / "retrieval.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="q8_s0.*no figures on test: clip 'a.wav' is damaged"):
        read_run(folder)
    assert not is_finished(folder)
    (folder / "retrieval.json").write_text("{")
    with pytest.raises(ValueError, match="q8_s0 is not a finished run"):
        read_run(folder)
    (folder / "retrieval.json").unlink()
    with pytest.raises(ValueError, match="retrieval.json"):
        read_run(folder)


def test_a_step_is_worth_it_when_one_modality_gains_within_an_epoch() -> None:
    yes, no = Growth(0.3, 0.5), Growth(0.01, 0.5)

    def worth_it(*gains: Growth, beyond_epoch: bool = False) -> bool:
        return Step(
            (8, 16), dict(zip(("audio", "text"), gains, strict=True)), beyond_epoch
        ).worth_it

    assert worth_it(yes, no) and worth_it(no, yes) and not worth_it(no, no)
    assert not worth_it(yes, yes, beyond_epoch=True)


def test_a_run_that_cannot_be_read_is_left_out_and_named(
    folders: list[Path], make_run, tmp_path: Path
) -> None:
    """It ended the study after hours of training, without a page for the others."""
    silent = make_run(tmp_path / "qauto_s0", 16, 0, auto=True)
    (silent / "rank.jsonl").unlink()
    (folders[1] / "config.yaml").write_text("common: {seed: [")
    study = aggregate([*folders, silent])
    assert [size.queue_size for size in study.variants[0].sizes] == [0, 8, 16, 64, 2048]
    assert study.variants[0].auto is None and study.variants[0].sizes[0].seeds == (0,)
    assert {Path(x).name for x in study.left_out} == {"q0_s1", "qauto_s0"}
    told = [note for note in notes(study) if note.startswith("Left out: ")]
    assert len(told) == 2 and "rank.jsonl does not say what it became" in told[1]
    assert "config.yaml is not a readable YAML file" in told[0]
    assert study.to_dict()["left_out"] == study.left_out
    with pytest.raises(InputError, match="rank.jsonl does not say what it became"):
        aggregate([silent])
