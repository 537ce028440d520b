"""Copies of recordings as they are met in data sets: other rates, formats, levels, cuts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import Wave, open_files, recording, resampled, write

from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.inspection.audio import inspect_audio
from atr_moco_plugin.inspection.copies import Waveforms, correlate, find_copies, with_sound_of
from atr_moco_plugin.inspection.findings import Finding
from atr_moco_plugin.inspection.same_audio import same_audio

RATE = 16_000
REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "esc50-16k"


def noisy(wave: Wave) -> Wave:
    noise = np.random.default_rng(7).normal(size=wave.shape) * np.sqrt(np.mean(wave**2)) / 10
    return (wave + noise).astype(np.float32)


# Name of the file to how it is written.
COPIES: dict[str, Callable[[Path, Wave], None]] = {
    "louder.wav": lambda path, wave: write(path, 2.5 * wave, RATE, subtype="PCM_24"),
    "inverted.flac": lambda path, wave: write(path, -0.2 * wave, RATE),
    "8khz.wav": lambda path, wave: write(path, resampled(wave, RATE, 8000), 8000),
    "44khz.flac": lambda path, wave: write(path, resampled(wave, RATE, 44_100), 44_100),
    "8bit.wav": lambda path, wave: write(path, wave, RATE, subtype="PCM_U8"),
    "coded.mp3": lambda path, wave: write(path, wave, RATE, compression_level=0.8),
    "coded.ogg": lambda path, wave: write(path, resampled(wave, RATE, 22_050), 22_050),
    "stereo.wav": lambda path, wave: write(path, np.stack([wave, 0.4 * wave], axis=1), RATE),
    "one side.wav": lambda path, wave: write(path, np.stack([wave, 0 * wave], axis=1), RATE),
    "cut.wav": lambda path, wave: write(path, wave[11_111:51_111], RATE),
    "cut.mp3": lambda path, wave: write(path, resampled(wave, RATE, 32_000)[40_001:], 32_000),
    "within.wav": lambda path, wave: write(
        path, np.concatenate([recording(50, 3.3), wave, recording(51, 2.0)]), RATE
    ),
    "noisy.wav": lambda path, wave: write(path, noisy(wave), RATE),
    "padded.wav": lambda path, wave: write(path, np.concatenate([0 * wave, wave, 0 * wave]), RATE),
}


def found(folder: Path, rows: list[tuple[str, str, str]]) -> list[Finding]:
    data = open_files(folder, rows)
    return same_audio(data, inspect_audio(data)[0])


def write_equal(folder: Path, wave: Wave) -> None:
    """The same samples as WAV and as FLAC."""
    write(folder / "a.wav", wave)
    samples, rate = soundfile.read(folder / "a.wav", dtype="int16")
    write(folder / "b.flac", samples, rate)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_and_other_recordings_are_not(tmp_path: Path, name: str) -> None:
    for seed in range(4):
        write(tmp_path / f"{seed}.wav", recording(seed))
    COPIES[name](tmp_path / name, recording(2))
    rows = [("train", f"{seed}.wav", f"Sound {seed}") for seed in range(4)]
    (finding,) = found(tmp_path, [*rows, ("test", name, "A sound")])
    assert (finding.kind, finding.split, finding.key) == ("leak between splits", "train", "2.wav")
    assert finding.others == (("manifest", "test", name),)
    assert finding.exclude
    seconds = 2.5 if name == "cut.wav" else 2.75 if name == "cut.mp3" else 4.0
    assert float(finding.what.split()[0]) == pytest.approx(seconds, abs=0.45)
    assert repr(name) in finding.what


def test_equal_samples_are_told_apart_from_copies(tmp_path: Path) -> None:
    write_equal(tmp_path, recording(1))
    (finding,) = found(tmp_path, [("train", "a.wav", "One"), ("train", "b.flac", "Two")])
    assert finding.kind == "same audio"
    assert finding.key == "b.flac"
    assert finding.what == "All of its samples are those of 'a.wav' of train."
    assert finding.exclude


def test_short_sounds_are_compared_by_their_samples_alone(tmp_path: Path) -> None:
    short = recording(1, 0.3)
    write_equal(tmp_path, short)
    write(tmp_path / "c.wav", 0.5 * short)
    rows = [("test", name, name) for name in ("a.wav", "b.flac", "c.wav")]
    (finding,) = found(tmp_path, rows)
    assert finding.key == "b.flac"
    assert not finding.exclude  # a published test set has copies


def test_many_copies_are_not_all_read_against_each_other(tmp_path: Path) -> None:
    number = 40
    for k in range(number):
        write(tmp_path / f"{k}.wav", (1 - 0.01 * k) * recording(1)[160 * k :][: 2 * RATE])
    rows = [
        ("test" if k == number - 1 else "train", f"{k}.wav", f"Sound {k}") for k in range(number)
    ]
    data = open_files(tmp_path, rows)
    audio, _ = inspect_audio(data)
    copies = find_copies(audio, Waveforms([(data, number)]))
    assert len(copies) < 12 * number
    findings = same_audio(data, audio)
    assert {f.key for f in findings if f.kind == "leak between splits" and f.exclude} == {
        f"{k}.wav" for k in range(number - 1)
    }


def test_of_three_short_sounds_both_of_an_earlier_split_leak(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path / name, recording(1, 0.3))
    rows = [("train", "a.wav", "One"), ("train", "b.wav", "Two"), ("test", "c.wav", "Three")]
    findings = found(tmp_path, rows)
    assert [(f.kind, f.key) for f in findings] == [
        ("leak between splits", "a.wav"),
        ("leak between splits", "b.wav"),
    ]


def test_digital_silence_is_no_recording(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, np.zeros(RATE, np.float32))
    assert found(tmp_path, [("train", "a.wav", "None"), ("test", "b.wav", "Nothing")]) == []


@pytest.mark.parametrize("later", ["b.wav", "c.wav"])
def test_sound_that_another_part_of_a_long_clip_has_is_no_leak(tmp_path: Path, later: str) -> None:
    parts = [recording(seed) for seed in (1, 2, 3)]
    for name, wave in zip(("a.wav", "b.wav", "c.wav"), parts, strict=True):
        write(tmp_path / name, wave)
    write(tmp_path / "all.wav", np.concatenate(parts))
    rows = [(name, "test" if name == later else "train") for name in ("a.wav", "b.wav", "c.wav")]
    findings = found(
        tmp_path, [(split, name, name) for name, split in [*rows, ("all.wav", "train")]]
    )
    leaks = {finding.key: finding for finding in findings if finding.kind == "leak between splits"}
    assert set(leaks) == {"all.wav"}
    assert repr(later) in leaks["all.wav"].what


def test_a_leak_into_one_of_several_clips_of_a_later_split_is_found_over_a_long_clip(
    tmp_path: Path,
) -> None:
    parts = [recording(seed) for seed in (1, 2, 3)]
    write(tmp_path / "all.wav", np.concatenate(parts))
    names = [f"{k}.wav" for k in range(3)]
    for name, wave in zip(names, parts, strict=True):
        write(tmp_path / name, wave)
        write(tmp_path / f"soft {name}", 0.3 * wave)
    data = open_files(
        tmp_path,
        [("train", "all.wav", "All")]
        + [("train", f"soft {name}", "Soft") for name in names]
        + [("test", name, name) for name in names],
    )
    audio, _ = inspect_audio(data)
    copies = find_copies(audio, Waveforms([(data, len(audio))]))
    # Without the pairs of the soft clips and the clips of the later split themselves.
    over = [copy for copy in copies if 0 in (copy.first, copy.second)]
    assert with_sound_of([4, 5, 6], over, audio) == set(range(7))
    assert with_sound_of([5], over, audio) == {0, 2, 5}


def test_of_a_group_one_stays(tmp_path: Path) -> None:
    wave = recording(1)
    for k, name in enumerate(("a.wav", "b.wav", "c.wav", "d.wav", "e.wav")):
        write(tmp_path / name, (1 - 0.1 * k) * wave)
    splits = ("train", "train", "valid", "test", "test")
    rows = [(split, f"{'abcde'[k]}.wav", f"Sound {k}") for k, split in enumerate(splits)]
    findings = found(tmp_path, rows)
    assert [(f.kind, f.key, f.exclude) for f in findings] == [
        ("leak between splits", "a.wav", True),
        ("leak between splits", "b.wav", True),
        ("leak between splits", "c.wav", True),
        ("same audio", "e.wav", False),
    ]
    assert {key for _, _, key in findings[0].others} == {"b.wav", "c.wav", "d.wav", "e.wav"}


@pytest.mark.parametrize(
    ("splits", "left_out"),
    [
        (("fold1", "fold2"), "a.wav"),
        (("dev", "eval_b"), "a.wav"),
        (("dev", "train"), "b.wav"),
        (("dev", "valid"), "a.wav"),
        (("test", "dev"), "b.wav"),
    ],
)
def test_splits_of_other_names_leak_too(
    tmp_path: Path, splits: tuple[str, str], left_out: str
) -> None:
    """What training refuses, and what the list is to mend, was not named at all."""
    write_equal(tmp_path, recording(1))
    (tmp_path / "b.flac").rename(tmp_path / "b.wav")
    rows = [(splits[0], "a.wav", "One"), (splits[1], "b.wav", "Two")]
    (finding,) = found(tmp_path, rows)
    assert (finding.kind, finding.key) == ("leak between splits", left_out)
    assert finding.exclude and len(finding.others) == 1


def test_overlapping_parts_of_training_clips_stay(tmp_path: Path) -> None:
    wave = recording(1, 8.0)
    write(tmp_path / "a.wav", wave[: 5 * RATE])
    write(tmp_path / "b.wav", wave[3 * RATE :])
    (finding,) = found(tmp_path, [("train", "a.wav", "One"), ("train", "b.wav", "Two")])
    assert not finding.exclude
    assert "3.00 s earlier in this clip" in finding.what
    assert float(finding.what.split()[0]) == pytest.approx(2.0, abs=0.5)


def test_a_finding_does_not_list_a_group_without_end(tmp_path: Path) -> None:
    for k in range(25):
        write(tmp_path / f"{k}.wav", recording(1, 1.5))
    findings = found(tmp_path, [("valid", f"{k}.wav", f"Sound {k}") for k in range(25)])
    assert len(findings) == 24
    assert {len(finding.others) for finding in findings} == {20}


def test_sounds_that_are_alike_are_not_copies() -> None:
    """Sirens, engines and bells of a synthesiser, of which some have nearly the same pitch."""
    data = open_toy(ToyConfig(num_train=120, num_valid=15, num_test=15))
    audio, _ = inspect_audio(data, num_workers=2)
    assert len(same_audio(data, audio)) <= 2


def test_correlate() -> None:
    wave = recording(1, 2.0, 8000)
    around = np.concatenate([recording(2, 0.02, 8000), -3 * wave, recording(3, 0.02, 8000)])
    correlation, place = correlate(wave, around)
    assert (correlation > 0.99, place) == (True, 160)
    assert correlate(wave, recording(4, 2.04, 8000))[0] < 0.2
    assert correlate(0 * wave, around)[0] == 0
    time = np.arange(16_320) / 8000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    near = np.sin(2 * np.pi * 1001 * time).astype(np.float32)
    assert correlate(tone[:16_000], near)[0] < 0.5


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ESC-50 in ../shared")
@pytest.mark.slow
def test_copies_in_esc50_that_its_folds_do_not_know_of() -> None:
    """Five pairs, of which three are of different Freesound recordings; all were listened to by
    their waveforms, which correlate over seconds."""
    data = open_esc50(Esc50Config(root=REAL, split="fold", valid_fraction=0))
    audio, _ = inspect_audio(data, num_workers=2)
    pairs = {
        (audio[copy.first].key, audio[copy.second].key)
        for copy in find_copies(audio, Waveforms([(data, len(audio))]))
    }
    assert {tuple(sorted(pair)) for pair in pairs} == {
        ("2-28314-A-12", "2-30322-A-12"),
        ("2-28314-B-12", "2-30322-B-12"),
        ("3-151080-A-20", "5-151085-A-20"),
        ("4-188703-A-8", "4-188703-D-8"),
        ("4-205526-A-23", "4-205526-B-23"),
    }
