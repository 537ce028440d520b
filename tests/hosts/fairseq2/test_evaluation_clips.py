"""Faults of the splits that a run evaluates show before its first step, and cost no figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fairseq2")

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split import prepare_split
from atr_moco_plugin.hosts.fairseq2.runs.folder import CLIPS_FILE

Run = Callable[..., int]

SPLITS = {"train": 20, "valid": 4, "test": 3}


@pytest.fixture(scope="session")
def tiny_options(tiny_options: list[str]) -> list[str]:
    """Without the embedded data set's own options."""
    return [x for x in tiny_options if not x.startswith("dataset.config_overrides.")]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Sound clips in three splits, called by split and number."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for split, clips in SPLITS.items():
        for number in range(clips):
            write(folder / f"{split}{number}.wav")
            caption = f"sound {number} of {split}"
            rows.append({"audio": f"{split}{number}.wav", "caption": caption, "split": split})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def write(path: Path, broken: bool = False) -> None:
    """A clip of half a second, another one for each name; a broken one has a sample that is not a
    number, which its header does not show."""
    draw = np.random.default_rng(list(path.name.encode()))
    wave = draw.uniform(-0.1, 0.1, 8_000).astype(np.float32)
    if broken:
        wave[4_000] = np.nan
    soundfile.write(path, wave, 16_000, "FLOAT")


def of(manifest: Path) -> list[str]:
    return ["dataset.family=manifest", f"dataset.config_overrides.root={manifest}",
            "dataset.batch_size=4", "evaluation.batch_size=2"]  # fmt: skip


def result(out: Path) -> dict:
    return json.loads((out / "retrieval.json").read_text())


def the_error(capfd: pytest.CaptureFixture[str]) -> str:
    written = capfd.readouterr().err
    assert "Traceback" not in written, written[-3000:]
    (error,) = [line for line in written.splitlines() if " ERROR: " in line]
    return error


@pytest.mark.slow
def test_an_undecodable_clip_is_left_out_of_every_evaluation_alike(
    run: Run, manifest: Path, tmp_path: Path, capfd
) -> None:
    write(manifest / "valid2.wav", broken=True)
    write(manifest / "test0.wav", broken=True)
    out = tmp_path / "out"
    assert run(out, *of(manifest)) == 0
    said = capfd.readouterr().err
    assert "split 'valid': 1 of 4 clips cannot be decoded and are left out" in said
    assert "'valid2.wav' (" in said and "'test0.wav' (" in said
    splits = result(out)["splits"]
    assert (splits["valid"]["clips"], splits["valid"]["unreadable"]) == (3, 1)
    assert (splits["test"]["clips"], splits["test"]["unreadable"]) == (2, 1)
    # A run that goes on leaves out the same clips, though the file was mended.
    (out / "retrieval.json").unlink()
    write(manifest / "valid2.wav")
    assert run(out, *of(manifest)) == 0
    assert result(out)["splits"]["valid"]["clips"] == 3
    assert set(json.loads((out / CLIPS_FILE).read_text())["unreadable"]) == {"valid", "test"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluation.test_split=tset"], "no split 'tset', but"),
        (["dataset.valid_split=vlaid"], "no split 'vlaid', but"),
        (["dataset.max_bad_clips=0"], "split 'test': 1 of 3 clips cannot be decoded, more than"),
    ],
)
def test_what_can_be_known_is_told_before_the_first_step(
    run: Run, manifest: Path, tmp_path: Path, capfd, options: list[str], message: str
) -> None:
    write(manifest / "test0.wav", broken=True)
    out = tmp_path / "out"
    assert run(out, *of(manifest), *options) == 2
    assert message in the_error(capfd)
    assert not (out / "metrics" / "train.jsonl").exists()


def test_a_caption_without_a_word_is_told_with_its_split() -> None:
    data = open_toy(ToyConfig(num_train=4, num_valid=2, num_test=2))
    data.read_with(AudioReader(16_000))

    def no_word(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        raise InputError(f"Caption 0 ({captions[0]!r}) holds no word: drop it or correct it.")

    with pytest.raises(InputError, match="toy split 'test': Caption 0 .* holds no word"):
        prepare_split(data, "test", no_word, batch_size=4, max_seconds=1.0, num_workers=0)


def test_a_split_without_a_clip_that_can_be_decoded_is_refused(
    run: Run, manifest: Path, tmp_path: Path, capfd
) -> None:
    for number in range(SPLITS["test"]):
        write(manifest / f"test{number}.wav", broken=True)
    assert run(tmp_path / "out", *of(manifest)) == 2
    assert "split 'test': 3 of 3 clips cannot be decoded" in the_error(capfd)


@pytest.mark.slow
def test_a_split_that_fails_is_named_beside_the_figures_of_the_others(
    run: Run, manifest: Path, tmp_path: Path, capfd
) -> None:
    out = tmp_path / "out"
    assert run(out, *of(manifest)) == 0
    expected = result(out)
    (out / "retrieval.json").unlink()
    # Damage that comes after the first step.
    write(manifest / "test1.wav", broken=True)
    capfd.readouterr()
    assert run(out, *of(manifest), "report=true") == 2
    written = capfd.readouterr()
    assert "Traceback" not in written.err
    assert "Retrieval on manifest valid" in written.out
    assert "No figures on test: " in written.err and "test1.wav" in written.err
    found = result(out)
    assert "test1.wav" in found["failed"]["test"]
    assert found["splits"] == {"valid": expected["splits"]["valid"]}
    page = (out / "report" / "index.html").read_text()
    assert "no figures on test" in page.lower() and "test1.wav" in page


def test_a_split_of_which_one_clip_is_left_is_refused(
    run: Run, manifest: Path, tmp_path: Path, capfd
) -> None:
    """Its rank has no value, over which the first validation fell with a trace."""
    for number in range(SPLITS["valid"] - 1):
        write(manifest / f"valid{number}.wav", broken=True)
    assert run(tmp_path / "out", *of(manifest)) == 2
    assert "split 'valid' has a single clip to evaluate on" in the_error(capfd)


def test_a_clip_that_is_too_short_for_the_encoder_is_one_sentence(
    run: Run, manifest: Path, tmp_path: Path, capfd
) -> None:
    """Tokens of the recipe's model last longer than those of BEATs-base."""
    assert run(tmp_path / "out", *of(manifest), "evaluation.max_seconds=0.2") == 2
    assert "below the 5360 (0.335 s) that one BEATs token needs" in the_error(capfd)
