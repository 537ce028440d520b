from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from atr_moco_plugin.inspection.findings import keys_to_exclude
from atr_moco_plugin.inspection.opening import open_to_inspect
from atr_moco_plugin.inspection.report import inspect_dataset
from atr_moco_plugin.inspection.tables import clip_tables, tables


def test_everything_planted_is_found_and_ready_for_json(manifest: Path) -> None:
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    found = {(finding.kind, finding.split, finding.key) for finding in inspection.findings}
    assert {
        ("leak between splits", "train", "dog.wav"),
        ("silence", "train", "silent.wav"),
        ("clipping", "train", "loud.wav"),
        ("unreadable", "valid", "broken.wav"),
        ("shared caption", "train", "dog.wav"),
        ("near caption", "train", "dog.wav"),
        ("one word", "valid", "broken.wav"),
        ("markup", "train", "loud.wav"),
    } <= found
    assert set(keys_to_exclude(inspection.findings)) == {"dog.wav", "silent.wav", "broken.wav"}
    record = json.loads(json.dumps(inspection.as_json()))
    assert record["splits"]["train"]["audio"]["rates"] == {"16000": 3}
    assert record["splits"]["valid"]["audio"]["clips"] == 0
    assert record["found"]["near caption"] == {"train": 3, "test": 1}
    assert record["found"]["clipping"] == {"train": 1}
    assert record["exclude"] == keys_to_exclude(inspection.findings)
    assert record["tokens"] is None


def test_tables_fit_a_terminal(manifest: Path) -> None:
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    clips, captions, findings = tables(inspection)
    assert clips.rows[0] == ["clips", "3", "1", "1"]
    assert captions.rows[0] == ["captions", "4", "1", "1"]
    assert ["silence", "1", "0", "0", "1"] in findings.rows
    assert findings.notes == [
        "To be left out: broken.wav, dog.wav, silent.wav; --exclude FILE writes the list."
    ]
    for table in (clips, captions, findings):
        assert max(map(len, table.text().splitlines())) <= 100


def test_each_rate_and_number_of_channels_has_its_clips(manifest: Path) -> None:
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    assert inspection.audio is not None
    (first, second, third), rest = inspection.audio[:3], inspection.audio[3:]
    assert [clip.split for clip in (first, second, third)] == ["train"] * 3
    looked = [
        replace(first, rate=44_100, channels=2),
        replace(second, rate=44_100, channels=2),
        replace(third, rate=11_025),
    ]
    rows = clip_tables(replace(inspection, audio=[*looked, *rest]))[0].rows
    assert [row for row in rows if row[0].startswith("clips ")] == [
        ["clips at 44.1 kHz", "2", "0", "0"],
        ["clips at 11.025 kHz", "1", "0", "0"],
        ["clips at 16 kHz", "0", "0", "1"],
        ["clips with 2 channels", "2", "0", "0"],
        ["clips with 1 channel", "1", "0", "1"],
    ]
    many = [replace(first, rate=8_000 + rate) for rate in range(12)]
    rows = clip_tables(replace(inspection, audio=many))[0].rows
    rates = [row for row in rows if row[0].startswith("clips at")]
    assert len(rates) == 8 and rates[-1] == ["clips at 5 other rates", "5", "0", "0"]
    assert not any(
        "other" in row[0] for row in clip_tables(replace(inspection, audio=many[:8]))[0].rows
    )


def test_the_worst_comes_first(manifest: Path) -> None:
    import numpy as np
    import soundfile

    wave = np.sin(np.arange(32_000) / 9)
    for name, gain in (("loud.wav", 1.05), ("copy.wav", 9.0)):
        soundfile.write(manifest.parent / name, np.clip(gain * wave, -1, 1), 16_000)
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    clipped = [x.key for x in inspection.findings if x.kind == "clipping"]
    assert clipped == ["copy.wav", "loud.wav"]


def test_without_audio_the_captions_are_inspected_and_nothing_else(manifest: Path) -> None:
    opened = open_to_inspect("manifest", {"root": str(manifest)})
    looked = inspect_dataset(opened, audio=False)
    assert looked.audio is None
    assert "The audio was not looked at, as was asked." in looked.notes
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    alone = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    assert alone.audio is None
    assert alone.findings == looked.findings
    assert alone.as_json()["splits"]["train"]["left_out"] == {"missing": 3}


def test_another_data_set_with_the_recordings_is_found(manifest: Path) -> None:
    rows = manifest.read_text().replace("copy.wav", "loud.wav")
    manifest.write_text(rows)
    opened = open_to_inspect("manifest", {"root": str(manifest)})
    its = manifest.with_name("its.csv")
    its.write_text("file_name,caption,split\ncopy.wav,The dogs bark!,test\n")
    other = open_to_inspect("manifest", {"root": str(its), "name": "other"})
    inspection = inspect_dataset(opened, [other])
    leaks = [finding for finding in inspection.findings if finding.kind == "leak of audio"]
    dog = next(finding for finding in leaks if finding.key == "dog.wav")
    assert dog.others == (("other", "test", "copy.wav"),) and dog.exclude
    assert "leak of captions" in inspection.found()
    assert inspection.as_json()["against"] == ["other"]


def test_data_sets_of_one_name_are_all_held_against(manifest: Path) -> None:
    """Of two, the second one alone was."""
    others = []
    for name in ("its", "third"):
        table = manifest.with_name(f"{name}.csv")
        table.write_text(f"file_name,caption,split\ncopy.wav,words of {name},test\n")
        others.append(open_to_inspect("manifest", {"root": str(table)}))
    opened = open_to_inspect("manifest", {"root": str(manifest)})
    inspection = inspect_dataset(opened, others)
    assert inspection.as_json()["against"] == ["manifest (2)", "manifest (3)"]
    leaks = [finding for finding in inspection.findings if finding.kind == "leak of audio"]
    assert {name for finding in leaks for name, *_ in finding.others} == {
        "manifest (2)",
        "manifest (3)",
    }
    assert [other.dataset.name for other in others] == ["manifest", "manifest"]


def test_what_cannot_be_read_of_another_data_set_is_said(manifest: Path) -> None:
    (manifest.parent / "other.wav").write_bytes(b"no sound")
    its = manifest.with_name("its.csv")
    its.write_text("file_name,caption,split\nother.wav,something else,test\n")
    opened = open_to_inspect("manifest", {"root": str(manifest)})
    other = open_to_inspect("manifest", {"root": str(its), "name": "other"})
    notes = inspect_dataset(opened, [other]).notes
    assert any("other: 1 of 1 clips cannot be decoded" in note for note in notes)


def test_nothing_wrong_is_said_in_words(tmp_path: Path) -> None:
    opened = open_to_inspect("toy", {"num_train": 3, "num_valid": 2, "num_test": 2})
    inspection = inspect_dataset(opened, audio=False)
    if not inspection.findings:
        assert tables(inspection)[-1].notes == ["Nothing was found."]


def test_what_was_in_no_split_yet_has_its_own_line(tmp_path: Path) -> None:
    rows = [f"{n}.wav,sound number {n}" for n in range(31)]
    for n in range(30):
        noise = np.random.default_rng(n).normal(0, 0.1, 3_000)
        soundfile.write(tmp_path / f"{n}.wav", noise, 16_000)
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,caption", *rows]))
    inspection = inspect_dataset(open_to_inspect("folder", {"root": str(tmp_path)}))
    (clips,) = clip_tables(inspection)
    assert clips.notes == ["In no split yet: 1 without audio."]
    assert inspection.as_json()["left_out_of_no_split"] == {"missing": 1}
