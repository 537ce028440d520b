from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.splitting import choose_sources
from atr_moco_plugin.data.sets.esc50 import PHRASES_FILE, Esc50Config, open_esc50
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import normalize_caption

READER = AudioReader(16_000)

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "esc50-16k"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real ESC-50 clips are not beside the repo")

CLASS_PHRASES = {k: tuple(v) for k, v in json.loads(PHRASES_FILE.read_text()).items()}
CLASSES = ("dog", "rain", "siren")


def build(
    root: Path, layout: str, *, leak: bool = False, encoding: str = "utf-8"
) -> list[dict[str, str]]:
    """Five folds, three classes, two takes a source; ``leak``: a source in folds 1 and 4."""
    (root / "audio").mkdir(parents=True)
    rows = []
    for fold in range(1, 6):
        for target, label in enumerate(CLASSES):
            source = f"{fold}0{target}"
            if leak and fold == 1 and label == "dog":
                source = "400"
            for take in "AB":
                suffix = "wav" if layout == "official" else "ogg"
                row = {
                    "filename": f"{fold}-{fold}0{target}-{take}-{target}.{suffix}",
                    "fold": str(fold),
                    "target": str(target),
                    "category": label,
                    "esc10": "True",
                    "src_file": source,
                    "take": take,
                }
                if layout == "bench":
                    row |= {"author": "Jos\u00e9", "bench_split": "test" if fold == 5 else "train"}
                wave = np.random.default_rng(len(rows)).uniform(-0.1, 0.1, 8000)
                soundfile.write(root / "audio" / row["filename"], wave, 16000)
                rows.append(row)
    index = root / ("meta/esc50.csv" if layout == "official" else "esc50_16k.csv")
    index.parent.mkdir(exist_ok=True)
    with index.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def sources(data: AudioTextDataset, rows: list[dict[str, str]]) -> dict[str, set[str]]:
    of = {Path(row["filename"]).stem: row["src_file"] for row in rows}
    return {split: {of[clip.key] for clip in clips} for split, clips in data.splits.items()}


def assert_disjoint(parts: dict[str, set[str]]) -> None:
    assert list(parts) == ["train", "valid", "test"]
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["valid"]
    assert not parts["valid"] & parts["test"]


def test_the_official_layout_by_fold(tmp_path: Path) -> None:
    rows = build(tmp_path, "official")
    data = open_esc50(Esc50Config(tmp_path, test_fold=2))
    assert {clip.key.split("-")[0] for clip in data.clips("test")} == {"2"}
    assert len(data.clips("test")) == 6
    assert len(data.clips("train")) + len(data.clips("valid")) == 24
    assert {clip.label for clip in data.clips("valid")} == set(CLASSES)
    assert_disjoint(sources(data, rows))
    clip = data.clips("test")[0]
    assert (
        clip.captions == CLASS_PHRASES[clip.label] and clip.caption_group == f"esc50/{clip.label}"
    )
    assert data.read_with(READER).load(clip).shape == (8000,)


def test_the_bench_layout(tmp_path: Path) -> None:
    rows = build(tmp_path, "bench", encoding="latin-1")
    data = open_esc50(Esc50Config(tmp_path))
    assert {clip.key.split("-")[0] for clip in data.clips("test")} == {"5"}
    assert_disjoint(sources(data, rows))
    by_fold = open_esc50(Esc50Config(tmp_path, split="fold", test_fold=1))
    assert {clip.key.split("-")[0] for clip in by_fold.clips("test")} == {"1"}


def test_a_training_source_that_is_in_test_is_left_out(tmp_path: Path) -> None:
    rows = build(tmp_path, "official", leak=True)
    data = open_esc50(Esc50Config(tmp_path, test_fold=4))
    assert_disjoint(sources(data, rows))
    assert sum(len(clips) for clips in data.splits.values()) == 28


def test_phrases_of_the_folder_come_first(tmp_path: Path) -> None:
    build(tmp_path, "bench")
    phrases = {label: [f"{label} one", f"{label} two"] for label in CLASSES}
    path = tmp_path / "class_phrases.json"
    path.write_text(json.dumps(phrases))
    data = open_esc50(Esc50Config(tmp_path))
    assert {clip.captions for clip in data.clips("train") if clip.label == "dog"} == {
        ("dog one", "dog two")
    }
    del phrases["rain"]
    path.write_text(json.dumps(phrases))
    with pytest.raises(ValueError, match="no list of captions for class 'rain'"):
        open_esc50(Esc50Config(tmp_path))


def test_missing_audio_is_counted_or_an_error(tmp_path: Path) -> None:
    rows = build(tmp_path, "official")
    before = sources(open_esc50(Esc50Config(tmp_path)), rows)
    gone = tmp_path / "audio" / rows[0]["filename"]
    gone.unlink()
    data = open_esc50(Esc50Config(tmp_path))
    assert data.missing == 1 and "1 clips without audio left out" in data.summary()
    assert sum(len(clips) for clips in data.splits.values()) == 29
    assert sources(data, rows) == before
    with pytest.raises(FileNotFoundError, match="1 of the 30 audio files") as caught:
        open_esc50(Esc50Config(tmp_path, strict=True))
    assert str(gone) in str(caught.value)


def test_a_root_that_fits_no_layout_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        open_esc50(Esc50Config(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="found an empty folder"):
        open_esc50(Esc50Config(tmp_path))
    (tmp_path / "readme.txt").touch()
    with pytest.raises(
        FileNotFoundError,
        match=r"looked for audio/ with meta/esc50.csv or esc50_16k.csv, found readme.txt",
    ):
        open_esc50(Esc50Config(str(tmp_path)))


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    build(tmp_path, "official")
    with pytest.raises(ValueError, match="no column 'bench_split'; use split 'fold'"):
        open_esc50(Esc50Config(tmp_path, split="bench"))
    with pytest.raises(ValueError, match="no clip of fold 7; its folds are 1, 2, 3, 4, 5"):
        open_esc50(Esc50Config(tmp_path, test_fold=7))
    with pytest.raises(ValueError, match="`split` is 'half', expected one of auto, bench, fold"):
        open_esc50(Esc50Config(tmp_path, split="half"))
    with pytest.raises(ValueError, match="`valid_fraction` is .*, expected at least 0 and below 1"):
        open_esc50(Esc50Config(tmp_path, valid_fraction=1.0))
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold\na.wav,1\n")
    with pytest.raises(ValueError, match="a column 'category'"):
        open_esc50(Esc50Config(tmp_path))


def test_no_validation_when_none_is_wanted(tmp_path: Path) -> None:
    build(tmp_path, "official")
    assert list(open_esc50(Esc50Config(tmp_path, valid_fraction=0)).splits) == ["train", "test"]


def test_choose_sources_takes_the_share_of_each_class() -> None:
    clips = [("a", f"a{k}") for k in range(40)] + [("b", f"b{k // 4}") for k in range(40)]
    chosen = choose_sources(clips, 0.1, seed=0)
    assert sum(source in chosen for label, source in clips if label == "a") == 4
    assert sum(source in chosen for label, source in clips if label == "b") == 4
    assert chosen == choose_sources(clips[::-1], 0.1, seed=0)
    assert chosen != choose_sources(clips, 0.1, seed=1)


def test_choose_sources_takes_one_of_two_and_never_the_only_one() -> None:
    clips = [("one", "x")] * 8 + [("two", "big")] * 3 + [("two", "small")]
    assert choose_sources(clips, 0.1, seed=0) == {"small"}
    assert choose_sources(clips, 0.0, seed=0) == set()


def test_a_source_of_two_classes_leaves_each_class_another() -> None:
    clips = [("a", "s"), ("a", "t"), ("b", "s"), ("c", "t"), ("c", "u")]
    for seed in range(20):
        chosen = choose_sources(clips, 0.4, seed)
        left = {label for label, source in clips if source not in chosen}
        assert left == {"a", "b", "c"} and "s" not in chosen


def test_the_own_phrases() -> None:
    assert len(CLASS_PHRASES) == 50
    texts = [normalize_caption(text) for row in CLASS_PHRASES.values() for text in row]
    assert all(len(row) == 3 for row in CLASS_PHRASES.values())
    assert len(set(texts)) == 150 and all(texts)


@real
def test_the_real_clips() -> None:
    data = open_esc50(Esc50Config(REAL, strict=True))
    sizes = {split: len(clips) for split, clips in data.splits.items()}
    assert sizes["train"] + sizes["valid"] == 480 and sizes["test"] == 251
    assert 48 <= sizes["valid"] <= 96
    with (REAL / "esc50_16k.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert_disjoint(sources(data, rows))
    assert {row["category"] for row in rows} == {clip.label for clip in data.clips("train")}
    assert len({clip.label for clip in data.clips("valid")}) == 47  # 3 classes have one source

    retrieval_set = data.retrieval_set("test")
    assert retrieval_set.relevance.shape == (251, 147)
    hits = retrieval_set.relevance.sum(dim=1)
    assert torch.equal(hits, torch.full_like(hits, 3))
    assert len(set(retrieval_set.caption_ids.tolist())) == 49
    for clip in data.clips("test")[::60]:
        assert abs(data.read_with(READER).load(clip).shape[0] - 80_000) <= 400

    fold = open_esc50(Esc50Config(REAL, split="fold", test_fold=4))
    assert len(fold.clips("test")) == 400
    assert_disjoint(sources(fold, rows))


@real
def test_the_own_phrases_cover_the_real_classes_in_other_words() -> None:
    theirs = json.loads((REAL / "class_phrases.json").read_text(encoding="utf-8"))
    assert set(theirs) == set(CLASS_PHRASES)
    copied = {t for row in theirs.values() for t in row} & {
        t for row in CLASS_PHRASES.values() for t in row
    }
    assert not copied


def test_a_list_leaves_clips_out_and_moves_no_other(tmp_path: Path) -> None:
    rows = build(tmp_path / "esc", "official")
    whole = open_esc50(Esc50Config(tmp_path / "esc", test_fold=2))
    gone = [whole.clips("test")[0].key, whole.clips("valid")[0].key]
    (tmp_path / "esc" / "audio" / rows[0]["filename"]).unlink()
    absent = Path(rows[0]["filename"]).stem  # a list that names it was made where it is there
    (tmp_path / "list.txt").write_text("\n".join([*gone, absent]))
    data = open_esc50(Esc50Config(tmp_path / "esc", test_fold=2, exclude=tmp_path / "list.txt"))
    for split in whole.splits:
        expected = {clip.key for clip in whole.clips(split)} - {*gone, absent}
        assert {clip.key for clip in data.clips(split)} == expected
    assert [data.counts[split].excluded for split in ("train", "valid", "test")] == [0, 1, 1]
    assert data.counts["test"].seconds == 5.0 * len(data.clips("test"))
    (tmp_path / "list.txt").write_text("dog\n")
    with pytest.raises(InputError, match="line 1 leaves out 'dog', which is no clip of esc50"):
        open_esc50(Esc50Config(tmp_path / "esc", exclude=tmp_path / "list.txt"))


def set_bench(root: Path, **changes: str) -> None:
    """Other values of ``bench_split`` in rows, by what is there."""
    path = root / "esc50_16k.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    for row in rows:
        row["bench_split"] = changes.get(row["bench_split"], row["bench_split"])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_column_of_splits_has_train_and_test_alone(tmp_path: Path) -> None:
    build(tmp_path, "bench")
    plain = open_esc50(Esc50Config(tmp_path))
    set_bench(tmp_path, test=" Test", train="TRAIN")
    assert open_esc50(Esc50Config(tmp_path)).fingerprint() == plain.fingerprint()
    set_bench(tmp_path, **{" Test": "valid", "Test": "valid"})
    said = r"esc50_16k.csv: row 25 has the bench_split 'valid', expected train or test"
    with pytest.raises(InputError, match=said):
        open_esc50(Esc50Config(tmp_path))
    set_bench(tmp_path, valid="")
    with pytest.raises(InputError, match="row 25 has the bench_split '', expected train or test"):
        open_esc50(Esc50Config(tmp_path))
    open_esc50(Esc50Config(tmp_path, split="fold"))  # it is not read


def test_a_fold_beside_the_column_of_splits_is_refused(tmp_path: Path) -> None:
    build(tmp_path, "bench")
    said = "`test_fold` is 2, but the column bench_split says .* leave `test_fold` out, or set spl"
    with pytest.raises(InputError, match=said):
        open_esc50(Esc50Config(tmp_path, test_fold=2))
    open_esc50(Esc50Config(tmp_path, test_fold=2, split="fold"))


def test_equal_names_in_two_folders_are_two_clips(tmp_path: Path) -> None:
    """They were refused as one clip that is in two splits."""
    rows = build(tmp_path, "official")
    index = tmp_path / "meta" / "esc50.csv"
    for folder, row in zip("fg", rows, strict=False):
        (tmp_path / "audio" / folder).mkdir()
        name = f"{folder}/dog.wav"
        (tmp_path / "audio" / row["filename"]).rename(tmp_path / "audio" / name)
        index.write_text(index.read_text().replace(row["filename"], name))
    (tmp_path / "out.txt").write_text("g/dog.wav\n")
    for exclude in (None, tmp_path / "out.txt"):
        data = open_esc50(Esc50Config(tmp_path, exclude=exclude))
        keys = {clip.key for clips in data.splits.values() for clip in clips}
        assert len(keys) == len(rows) - bool(exclude)
        assert ("g/dog.wav" in keys) == (exclude is None)
        assert {"f/dog.wav", Path(rows[2]["filename"]).stem} < keys
