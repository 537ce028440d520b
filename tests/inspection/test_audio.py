"""Figures of clips and findings on them, against samples that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import recording, write

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.inspection.audio import inspect_audio
from atr_moco_plugin.inspection.clip_audio import ClipAudio

RATE = 16_000


def look_at(path: Path, **options: object) -> tuple[ClipAudio, dict[str, bool]]:
    """The figures of one file, and the kinds of its findings with what they propose."""
    data = AudioTextDataset("one", {"train": [Clip(path.name, ("a sound",), str(path))]})
    (clip,), findings = inspect_audio(data, **options)  # type: ignore[arg-type]
    return clip, {finding.kind: finding.exclude for finding in findings}


def test_figures_of_a_stereo_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.uniform(-0.5, 0.5, (44_100, 2)).astype(np.float32)
    frames[:, 1] = 0.25 * frames[:, 1] + 0.1
    write(tmp_path / "a.wav", frames, 44_100, subtype="FLOAT")
    clip, kinds = look_at(tmp_path / "a.wav")
    assert (clip.seconds, clip.rate, clip.channels, clip.problem) == (1.0, 44_100, 2, "")
    wide = frames.astype(np.float64)
    assert clip.peak == np.abs(wide).max()
    assert clip.rms == pytest.approx(np.sqrt((wide**2).mean()), rel=1e-6)
    assert clip.mono_rms == pytest.approx(np.sqrt((wide.mean(axis=1) ** 2).mean()), rel=1e-6)
    assert clip.offset == pytest.approx(np.abs(wide.mean(axis=0)).max(), rel=1e-6)
    assert (clip.clipped, clip.silent, clip.dead_channels) == (0, 0, 0)
    assert kinds == {"DC offset": False}


def test_a_long_file_has_the_figures_of_its_blocks_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.flac", recording(1, 3.0))
    whole, _ = look_at(tmp_path / "a.flac")
    monkeypatch.setattr("atr_moco_plugin.data.audio.decode._BLOCK", 7_001)
    parts, _ = look_at(tmp_path / "a.flac")
    assert parts.digest == whole.digest
    assert parts.rms == pytest.approx(whole.rms, rel=1e-12)
    # Resampled in blocks, words may differ where a bit hangs on a rounding error.
    assert len(parts.words) == len(whole.words)
    assert (parts.words == whole.words).mean() > 0.95


@pytest.mark.parametrize("level", [0.0, 10 ** (-75 / 20)])
def test_silence_is_to_be_left_out(tmp_path: Path, level: float) -> None:
    noise = np.random.default_rng(0).choice([-level, level], RATE).astype(np.float32)
    write(tmp_path / "a.wav", noise, subtype="FLOAT")
    clip, kinds = look_at(tmp_path / "a.wav")
    assert clip.silent == 1
    assert kinds == {"silence": True}
    assert bool(clip.digest) == bool(level)


def test_a_clip_of_mostly_silence_stays(tmp_path: Path) -> None:
    wave = np.zeros(2 * RATE, np.float32)
    wave[:2400] = recording(1, 0.15)
    write(tmp_path / "a.wav", wave)
    clip, kinds = look_at(tmp_path / "a.wav")
    assert clip.silent == pytest.approx(1 - 0.15 / 2)
    assert kinds == {"mostly silent": False}


def test_channels_that_cancel_are_silent_to_a_model(tmp_path: Path) -> None:
    wave = recording(1)
    write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1))
    assert look_at(tmp_path / "a.wav")[1] == {"channels cancel": True}
    write(tmp_path / "b.wav", np.stack([wave, -0.95 * wave], axis=1))
    assert look_at(tmp_path / "b.wav")[1] == {"channels cancel": False}


def test_a_dead_channel_and_a_quiet_clip_are_told(tmp_path: Path) -> None:
    wave = recording(1)
    write(tmp_path / "a.wav", np.stack([wave, 0 * wave], axis=1))
    assert look_at(tmp_path / "a.wav")[1] == {"dead channel": False}
    write(tmp_path / "b.wav", 0.02 * wave)
    assert look_at(tmp_path / "b.wav")[1] == {"quiet": False}


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "ULAW", "FLOAT"])
def test_clipping_is_found_in_every_type(tmp_path: Path, subtype: str) -> None:
    loud = np.clip(10 * recording(1), -1, 1)
    write(tmp_path / "a.wav", loud, subtype=subtype)
    clip, kinds = look_at(tmp_path / "a.wav")
    written, _ = soundfile.read(tmp_path / "a.wav")
    ends = {written.max(), written.min()}
    at_end = [False, *(sample in ends for sample in written), False]
    flat = sum(at_end[k] and (at_end[k - 1] or at_end[k + 1]) for k in range(1, len(at_end) - 1))
    assert flat > 1000
    # Eight bits reach one step further down than up.
    assert clip.clipped == pytest.approx(flat / len(written), rel=0.02)
    assert kinds == {"clipping": False}


def test_a_peak_that_was_made_to_fit_is_not_clipping(tmp_path: Path) -> None:
    wave = recording(1)
    write(tmp_path / "a.wav", wave / np.abs(wave).max())
    clip, kinds = look_at(tmp_path / "a.wav")
    assert clip.peak > 0.9999
    assert (clip.clipped, kinds) == (0, {})


def test_integers_that_were_not_scaled_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 30_000 * recording(1), subtype="FLOAT")
    assert look_at(tmp_path / "a.wav")[1] == {"scale": False}


def damaged(path: Path, kind: str) -> None:
    if kind == "missing":
        return
    if kind == "text":
        path.write_text("no sound")
        return
    wave = recording(1)
    if kind == "nan":
        wave[100] = np.nan
    if kind == "short":
        wave = wave[:1000]
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such audio file"),
        ("text", "not readable as audio"),
        ("nan", "has NaN or infinite samples"),
        ("short", "lasts 0.062 s, less than 0.175 s"),
        ("truncated", "is truncated"),
    ],
)
def test_a_file_that_cannot_be_decoded_does_not_stop_the_others(
    tmp_path: Path, kind: str, reason: str
) -> None:
    write(tmp_path / "a.wav", recording(1))
    damaged(tmp_path / "b.wav", kind)
    clips = [Clip(name, ("a sound",), str(tmp_path / name)) for name in ("b.wav", "a.wav")]
    audio, findings = inspect_audio(AudioTextDataset("two", {"test": clips}), num_workers=2)
    assert [clip.key for clip in audio] == ["b.wav", "a.wav"]
    assert [bool(clip.problem) for clip in audio] == [True, False]
    (finding,) = findings
    assert (finding.kind, finding.split, finding.key) == ("unreadable", "test", "b.wav")
    assert finding.exclude
    assert reason in finding.what


def test_a_segment_is_measured_alone(tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(RATE, np.float32), recording(1, 2.0)])
    write(tmp_path / "long.wav", wave)
    table = tmp_path / "parts.csv"
    table.write_text("file_name,caption,start,end\nlong.wav,Nothing,0,1\nlong.wav,Noise,1,3\n")
    audio, findings = inspect_audio(open_manifest(ManifestConfig(root=table)))
    assert [clip.seconds for clip in audio] == [1.0, 2.0]
    assert [clip.silent for clip in audio] == [1.0, 0.0]
    assert [finding.kind for finding in findings] == ["silence"]


def test_clips_that_are_rendered_are_measured_too() -> None:
    data = open_toy(ToyConfig(num_train=3, num_valid=1, num_test=1))
    audio, findings = inspect_audio(data)
    assert [clip.split for clip in audio] == ["train"] * 3 + ["valid", "test"]
    assert {(clip.rate, clip.channels, clip.seconds) for clip in audio} == {(16_000, 1, 4.0)}
    assert findings == []
