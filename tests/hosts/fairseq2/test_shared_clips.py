"""Several captions of a clip, and mixtures of clips, by keys of a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fairseq2")

Run = Callable[..., int]


def test_a_run_with_both_trains_and_goes_on(run: Run, tmp_path: Path) -> None:
    keys = [
        "dataset.captions_per_clip=2",
        "dataset.mix.probability=0.5",
        "dataset.mix.wordings=['{} with {}']",
    ]
    assert run(tmp_path, *keys) == 0
    lines = (tmp_path / "metrics" / "train.jsonl").read_text().splitlines()
    losses = [json.loads(line)["Loss"] for line in lines]
    assert len(losses) == 4 and all(math.isfinite(x) for x in losses)
    assert run(tmp_path, *keys) == 0  # it is at its end


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            ["criterion=atc", "dataset.captions_per_clip=2"],
            "`dataset.captions_per_clip` is 2, but `criterion.config.positives` is pair",
        ),
        (["dataset.captions_per_clip=3"], "does not divide batch_size, 8"),
        (["dataset.captions_per_clip=8"], "no clip of toy split 'train' has more than 5"),
        (["dataset.mix.probability=2"], "`probability` is 2.0, expected"),
        (["dataset.mix.wordings=['and']"], "expected two {} for the two captions"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    run: Run, tmp_path: Path, capsys, keys: list[str], said: str
) -> None:
    assert run(tmp_path, *keys) in (1, 2)
    assert said in " ".join(capsys.readouterr().err.split())
