from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scene_folders import RATE, tone, write_tone

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.sets.scene_captions import RecordedScene, SceneEvent
from atr_moco_plugin.data.sets.scene_rendering import (
    FAR_DB,
    NEAR_DB,
    SceneRenderer,
    SceneSource,
    excerpt,
    render_scene,
)
from atr_moco_plugin.errors import InputError

SAMPLES = 5 * RATE
PITCHES = (500.0, 1500.0, 4000.0)


def recording(hertz: float, seconds: float, before: float = 0.0, after: float = 0.0) -> np.ndarray:
    """A tone between silence."""
    parts = [np.zeros(round(before * RATE)), tone(hertz, seconds), np.zeros(round(after * RATE))]
    return np.concatenate(parts).astype(np.float32)


def rendered(arrangement: str, far: tuple[bool, ...], seed: int, waves: list[np.ndarray]):
    events = tuple(SceneEvent(str(at), value) for at, value in enumerate(far))
    scene = RecordedScene(arrangement, events)
    return render_scene(scene, waves, SAMPLES, RATE, np.random.default_rng(seed))


def band(wave: np.ndarray, hertz: float) -> np.ndarray:
    """What of a waveform is within a third of a frequency."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(wave.size, 1 / RATE)
    spectrum[np.abs(frequency / hertz - 1) > 0.3] = 0
    return np.fft.irfft(spectrum, wave.size)


def heard(wave: np.ndarray, hertz: float) -> np.ndarray:
    """Samples at which a tone is heard."""
    part = np.abs(band(wave, hertz))
    return np.flatnonzero(part > 0.3 * part.max())


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 6.0])
def test_then_is_in_order(number: int, seconds: float) -> None:
    for seed in range(6):
        waves = [recording(hertz, seconds, 0.5, 0.3) for hertz in PITCHES[:number]]
        out = rendered("then", (False,) * number, seed, waves)
        places = [heard(out, hertz) for hertz in PITCHES[:number]]
        for first, second in zip(places, places[1:], strict=False):
            assert first.max() < second.min() + 100


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("seconds", [(0.3, 2.0, 1.0), (6.0, 5.0, 4.0)])
def test_while_is_at_once(number: int, seconds: tuple[float, ...]) -> None:
    for seed in range(6):
        waves = [recording(h, s) for h, s in zip(PITCHES[:number], seconds, strict=False)]
        out = rendered("while", (False,) * number, seed, waves)
        spans = [(place.min(), place.max()) for place in (heard(out, h) for h in PITCHES[:number])]
        longest = max(spans, key=lambda span: span[1] - span[0])
        for start, stop in spans:
            assert longest[0] - 800 <= start and stop <= longest[1] + 3200


def test_far_sounds_are_quieter_whatever_the_level_of_their_recordings() -> None:
    def level(far: bool, gain: float, seed: int) -> float:
        wave = np.float32(gain) * recording(1000, 3)
        out = band(rendered("alone", (far,), seed, [wave]), 1000)
        out = out[np.abs(out) > 0.3 * np.abs(out).max()]
        return float(20 * np.log10(np.sqrt(2) * np.median(np.abs(out))))  # of a sine

    near = [level(False, gain, seed) for seed in range(10) for gain in (0.01, 3.0)]
    far = [level(True, gain, seed) for seed in range(10) for gain in (0.01, 3.0)]
    assert max(far) < min(near)
    assert np.mean(near) - np.mean(far) == pytest.approx(-FAR_DB, abs=1)


def test_the_root_mean_square_of_a_near_sound_is_the_one_that_is_stated() -> None:
    for seed in range(10):
        noise = np.random.default_rng(seed).uniform(-0.9, 0.9, 8 * RATE).astype(np.float32)
        out = rendered("alone", (False,), seed, [noise])
        place = np.flatnonzero(np.abs(out) > 0.03)
        middle = out[place.min() + 4000 : place.max() - 4000]  # without the fades
        level = 20 * np.log10(np.sqrt(np.square(middle, dtype=float).mean()))
        assert level == pytest.approx(NEAR_DB, abs=2.5)


def test_audio_is_on_the_grid_of_16_bits_and_within_full_scale() -> None:
    click = np.zeros(3 * RATE, np.float32)
    click[8000:8040] = 1
    loud = [click, np.sign(recording(300, 4)), np.sign(recording(310, 4))]
    for seed in range(8):
        out = rendered("while", (False,) * 3, seed, loud)
        assert out.dtype == np.float32 and out.shape == (SAMPLES,)
        assert 0.1 < np.abs(out).max() < 1
        np.testing.assert_array_equal(out * 32768, np.rint(out * 32768))


def test_an_excerpt_is_where_the_sound_is() -> None:
    wave = recording(1000, 1.0, before=3.0, after=4.0)
    for seed in range(5):
        whole = excerpt(wave, 2 * RATE, RATE, np.random.default_rng(seed))
        assert len(whole) == pytest.approx(RATE, abs=1000)  # all of the sound and no more
        part = excerpt(wave, RATE // 2, RATE, np.random.default_rng(seed))
        assert len(part) == pytest.approx(RATE // 2, abs=700)
    loud = np.concatenate([0.05 * recording(1000, 5), recording(1000, 1), 0.05 * recording(900, 5)])
    for seed in range(5):
        part = excerpt(loud, RATE, RATE, np.random.default_rng(seed))
        assert np.square(part).sum() > 0.45 * np.square(recording(1000, 1)).sum()


def clip_of(*paths: Path) -> Clip:
    events = tuple(SceneEvent(path.stem, False) for path in paths)
    scene = RecordedScene("then" if len(paths) > 1 else "alone", events)
    return Clip("test-0", ("x",), SceneSource(scene, tuple(map(str, paths)), ("x",) * len(paths)))


def test_a_recording_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    render = SceneRenderer(0, 3.0, RATE)
    good = write_tone(tmp_path / "good.wav")
    with pytest.raises(InputError, match=r"silent.wav: is silent; put a sound in its place"):
        render(clip_of(good, write_tone(tmp_path / "silent.wav", level=0)))
    with pytest.raises(InputError, match=r"short.wav: lasts 0.100 s"):
        render(clip_of(write_tone(tmp_path / "short.wav", seconds=0.1)))
    with pytest.raises(FileNotFoundError, match="gone.wav"):
        render(clip_of(tmp_path / "gone.wav"))
    with pytest.raises(FileNotFoundError, match="gone.wav"):
        render.key(clip_of(tmp_path / "gone.wav"))


def test_of_a_long_recording_a_drawn_minute_is_read(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "long.wav", seconds=70)
    wave = SceneRenderer(0, 3.0, RATE)(clip_of(path))
    assert wave.shape == (3 * RATE,)
    assert not np.array_equal(wave, SceneRenderer(1, 3.0, RATE)(clip_of(path)))


def test_of_a_long_recording_a_loud_part_is_read(tmp_path: Path) -> None:
    hum = 3e-4 * np.sin(np.arange(200 * 8000))  # -70 dB, which no check takes for silence
    for quiet in (np.zeros(200 * 8000), hum):
        for at in (0, 120, 197):
            wave = quiet.copy()
            wave[at * 8000 : (at + 3) * 8000] += tone(500, 3, 8000)
            soundfile.write(tmp_path / f"{at}.wav", wave, 8000)
            for seed in range(8):
                render = SceneRenderer(seed, 3.0, RATE)
                heard = render(clip_of(tmp_path / f"{at}.wav"))
                np.testing.assert_array_equal(heard, render(clip_of(tmp_path / f"{at}.wav")))
                spectrum = np.abs(np.fft.rfft(heard))
                assert abs(spectrum.argmax() / 3 - 500) < 2  # and not the hum, made loud


def test_a_long_recording_that_is_silent_is_named(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "long.wav", seconds=70, level=0)
    with pytest.raises(InputError, match="long.wav: is silent"):
        SceneRenderer(0, 3.0, RATE)(clip_of(path))


@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac"])
def test_long_recordings_of_other_formats(tmp_path: Path, kind: str) -> None:
    wave = np.zeros(round(100.3 * RATE))
    wave[-2 * RATE :] = tone(500, 2)
    soundfile.write(tmp_path / f"a.{kind}", wave, RATE)
    for seed in range(4):
        SceneRenderer(seed, 3.0, RATE)(clip_of(tmp_path / f"a.{kind}"))


def damaged(path: Path, wave: np.ndarray, share: float = 0.8) -> Path:
    """Long, with something that cannot be decoded at a share of it."""
    if path.suffix == ".wav":
        wave[round(share * len(wave))] = np.nan
        soundfile.write(path, wave, 8000, subtype="FLOAT")
        return path
    soundfile.write(path, wave, 8000)
    content = bytearray(path.read_bytes())
    at = round(share * len(content))
    content[at : at + 3000] = b"\xaa" * 3000
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "seconds", "share"),
    [
        *((name, 200, share) for name in ("a.wav", "a.flac") for share in (0.1, 0.8)),
        ("a.wav", 130.25, 70.3 / 130.25),
    ],
)
def test_of_a_long_recording_with_damage_another_part_is_read(
    tmp_path: Path, name: str, seconds: float, share: float
) -> None:
    """It could not be used at all, and was decoded again for each of its scenes."""
    noise = np.random.default_rng(0).normal(size=200 * 8000).astype(np.float32)
    # No whole number of half seconds: the last part reached back into what was left out.
    path = damaged(tmp_path / name, 0.05 * noise[: round(seconds * 8000)], share)
    for seed in range(40 if seconds < 200 else 8):
        assert SceneRenderer(seed, 3.0, RATE)(clip_of(path)).shape == (3 * RATE,)


def test_damage_of_a_drawn_part_is_named(tmp_path: Path) -> None:
    path = damaged(tmp_path / "a.wav", np.full(65 * 8000, 0.1, np.float32))
    with pytest.raises(InputError, match="a.wav.*: has NaN or infinite samples"):
        SceneRenderer(0, 3.0, RATE)(clip_of(path))
