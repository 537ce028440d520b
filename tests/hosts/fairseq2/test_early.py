"""What a run can refuse or warn of before it decodes, encodes or embeds anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fairseq2")

Run = Callable[..., int]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("trainer.grad_accumulation.num_batches=4", "is 4, but an epoch of `train` has 3 batches"),
        ("hooks.rank.often=1", "`hooks.rank` is not valid"),
        ("regime.score_metric=t2a_r11", "is t2a_r11, which no validation reports"),
        ("regime.score_metric=t2a_r1", "regime.score_metric was r_sum and is t2a_r1"),
        ("criterion.config.momentum=0.5", "criterion.config.momentum was"),
    ],
)
def test_what_the_configuration_says_is_refused_before_teachers_embed(
    run: Run, trained: Path, trained_copy: Path, capsys, option: str, said: str
) -> None:
    """It took the hours of a cache, a teacher and the look at every clip that is evaluated."""
    (trained_copy / "evaluation_clips.json").unlink()
    assert run(trained_copy, f"criterion.config.teachers=[{trained}]", option) == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if " ERROR: " in x]
    assert said in error
    assert not (trained_copy / "teachers").exists()
    assert not (trained_copy / "evaluation_clips.json").is_file()


def test_a_step_that_no_epoch_fills_is_refused_before_a_cache_is_written(
    run: Run, tmp_path: Path, capsys
) -> None:
    frozen = [f"model.config_overrides.{part}.freeze=all" for part in ("audio", "text")]
    cache = tmp_path / "cache"
    assert run(
        tmp_path / "out", *frozen, "criterion.name=moco_atc", f"dataset.cache_embeddings={cache}",
        "trainer.grad_accumulation.num_batches=4",
    ) == 2  # fmt: skip
    assert "is 4, but an epoch of `train` has 3 batches" in capsys.readouterr().err
    assert not cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "batches"),
    [(["captions=all", "batch_size=40"], 3), (["captions_per_clip=2"], 7)],
)
def test_the_batches_of_an_epoch_are_counted_as_the_loader_counts_them(
    run: Run, tmp_path: Path, capsys, options: list[str], batches: int
) -> None:
    given = [f"dataset.{x}" for x in options]
    few = [*given, "regime.num_steps=2"]
    assert run(tmp_path, *few, f"trainer.grad_accumulation.num_batches={batches + 1}") == 2
    assert f"has {batches} batches" in capsys.readouterr().err
    assert run(tmp_path, *few, f"trainer.grad_accumulation.num_batches={batches}") == 0


def test_a_run_without_a_score_is_warned_of_before_it_begins(
    run: Run, tmp_path: Path, capsys
) -> None:
    """It was told after the last step alone."""
    assert run(tmp_path, "regime.score_metric=null", "regime.num_steps=2") == 0
    said = capsys.readouterr().err
    assert (
        0
        < said.index("No checkpoint will have a validation score")
        < said.index("Running on 1 process")
    )
