"""The AudioCaps and Clotho recipes on small folders in the official layouts, with real encoders."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from beats_files import save_official

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.hosts.fairseq2.cli import run_recipe

CONFIGS = {"audiocaps": "AudiocapsRecipeConfig", "clotho": "ClothoRecipeConfig"}
AUDIO = {
    "embed_dim": 16,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "num_buckets": 32,
    "max_distance": 64,
}
TEXT = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
TINY = [
    *(f"model.config_overrides.audio.config.{key}={value}" for key, value in AUDIO.items()),
    *(f"model.config_overrides.text.config.{key}={value}" for key, value in TEXT.items()),
    "model.config_overrides.text.config.pretrained=null",
    "model.config_overrides.text.config.vocab_size=200",
    "tokenizer.name=null",
    "tokenizer.vocab_size=200",
    "tokenizer.max_tokens=16",
]
SHORT = [
    "dataset.batch_size=4",
    "dataset.num_workers=0",
    "evaluation.rerank_k=3",
    "report=false",
    "criterion.config.queue_size=16",
    "regime.validate_every_n_steps=2",
    "regime.checkpoint_every_n_steps=2",
    "regime.publish_metrics_every_n_steps=1",
    "regime.keep_best_n_checkpoints=null",
    "lr_scheduler.config.num_warmup_steps=1",
]
WORDS = ("dog barks", "man speaks", "rain falls", "engine idles", "bell rings", "water flows")
Run = Callable[..., int]


def tone(path: Path, index: int, seconds: float, rate: int = 32_000) -> None:
    """A stereo tone that says which clip it is."""
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 130 * index) * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), rate)


def captions(index: int, count: int) -> list[str]:
    first, second = WORDS[index % 6], WORDS[(index // 6 + index) % 6]
    return [f"A {first} while a {second} number {index} take {k}" for k in range(count)]


def write_audiocaps(root: Path, seconds: float = 0.6) -> Path:
    """Twelve training, four validation and four test clips, as the official files name them."""
    number = 0
    for split, size, count in (("train", 12, 1), ("val", 4, 5), ("test", 4, 5)):
        rows = []
        for index in range(size):
            youtube_id = f"{'-' if index % 3 == 0 else '_'}{split}x{index:04d}"
            tone(root / split / f"Y{youtube_id}.wav", number, seconds)  # no two alike
            number += 1
            rows += [[youtube_id, text] for text in captions(number, count)]
        # The five rows of a clip are not adjacent in the official files.
        rows = rows[::2] + rows[1::2]
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
            writer.writerows([[k, name, 30, text] for k, (name, text) in enumerate(rows)])
    return root


def write_clotho(root: Path) -> Path:
    """Clips of 0.5 to 1 s in the official folders, some with names as odd as the real ones."""
    odd = ("Rain, heavy (1).wav", 'The "bell".wav', "it&#39;s raining.wav")
    for number, split in enumerate(("development", "validation", "evaluation")):
        header = ["file_name", *(f"caption_{k}" for k in range(1, 6))]
        rows = []
        for index in range(6):
            name = f"{split} {odd[index]}" if index < 3 else f"{split} {index}.wav"
            tone(root / split / name, index + 5 * number, 0.5 + 0.1 * index, rate=44_100)
            rows.append([name, *captions(6 * number + index, 5)])
        with (root / f"clotho_captions_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a recipe on a folder; returns its exit status."""
    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(recipe: str, out: Path, root: Path, *config: str) -> int:
        module = importlib.import_module(f"atr_moco_plugin.recipes.{recipe}")
        data = f"dataset.config_overrides.root={root}"
        arguments = ["recipe", str(out), "--no-rich", "--config", data, *SHORT, *config]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            run_recipe(getattr(module, CONFIGS[recipe]))
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


@pytest.mark.slow
def test_audiocaps_trains_resumes_and_passes_on_to_clotho(run: Run, tmp_path: Path, capsys) -> None:
    audiocaps = write_audiocaps(tmp_path / "AudioCaps")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = (
        *TINY, "init=random", "dataset.max_seconds=0.5", "regime.num_steps=4",
        "criterion.config.atm_start=0",
        # What is random or kept on the way must not keep a resumed run from ending the same.
        "dataset.num_workers=1", f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.augment.gain_db=6", "dataset.augment.noise_probability=0.5",
        "model.config_overrides.spec_augment.time_masks=1",
        "model.config_overrides.patch_dropout.bands=3", "dataset.bucket_by_length=2",
    )  # fmt: skip
    assert run("audiocaps", whole, audiocaps, *options) == 0
    written = capsys.readouterr()
    assert "audiocaps: " in written.err and "12 clips" in written.err
    figures = json.loads((whole / "retrieval.json").read_text())["splits"]
    # The test split takes no part unless it is asked for.
    assert set(figures) == {"valid"} and figures["valid"]["captions"] == 20
    assert "r_sum_dup" in figures["valid"]["reranked"]

    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    (resumed / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run("audiocaps", resumed, audiocaps, *options) == 0
    expected, found = weights(whole, 4), weights(resumed, 4)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())

    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 16

    clotho = write_clotho(tmp_path / "Clotho")
    # The run says what its model is; nothing of it is asked for again. How long captions may be is
    # the recipe's, and BERT in miniature has 16 positions.
    more = (f"init={whole}", "regime.num_steps=2", "evaluation.test_split=test")
    assert run("clotho", tmp_path / "clotho", clotho, *more) == 2
    assert "`tokenizer.max_tokens` is 64, but" in capsys.readouterr().err
    more = (*more, "tokenizer.max_tokens=16")
    assert run("clotho", tmp_path / "clotho", clotho, *more) == 0
    assert "6 clips" in capsys.readouterr().err
    figures = json.loads((tmp_path / "clotho" / "retrieval.json").read_text())["splits"]
    assert set(figures) == {"valid", "test"} and figures["test"]["captions"] == 30
    # Two steps of four batches of four pairs.
    assert int(weights(tmp_path / "clotho", 2)["audio_queue.position"][0]) == 16


def write_manifest(root: Path, clips: dict[str, list[str]]) -> None:
    lines = [
        {"audio": f"{split}/{name}", "captions": captions(index, 2), "split": split}
        for split, names in clips.items()
        for index, name in enumerate(names)
    ]
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_wavcaps(root: Path, clips: dict[str, list[str]]) -> None:
    names = [name for split in clips.values() for name in split]
    data = [
        {"id": Path(name).stem, "caption": captions(index, 1)[0], "audio": name, "duration": 0.6}
        for index, name in enumerate(names)
    ]
    (root / "wavcaps.json").write_text(json.dumps({"data": data, "num_captions_per_audio": 1}))


def write_shards(root: Path, clips: dict[str, list[str]]) -> None:
    for split, names in clips.items():
        with tarfile.open(root / split / "0.tar", "w") as shard:
            for index, name in enumerate(names):
                shard.add(root / split / name, f"{index}.wav")
                text = json.dumps({"text": captions(index, 2), "tag": []}).encode()
                member = tarfile.TarInfo(f"{index}.json")
                member.size = len(text)
                shard.addfile(member, io.BytesIO(text))
        (root / split / "sizes.json").write_text(json.dumps({"0.tar": len(names)}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "write", "options"),
    [
        ("manifest", write_manifest, ()),
        ("wavcaps", write_wavcaps, ("dataset.config_overrides.valid_fraction=0.3",)),
        ("webdataset", write_shards, ()),
    ],
)
def test_the_recipe_takes_any_data_set(
    run: Run, tmp_path: Path, capsys, family: str, write, options: tuple[str, ...]
) -> None:
    root = write_audiocaps(tmp_path / "data")
    clips = {
        split: sorted(path.name for path in (root / folder).iterdir())
        for split, folder in (("train", "train"), ("val", "val"))
    }
    for file in root.glob("*.csv"):
        file.unlink()
    write(root, clips)
    more = ("init=random", "dataset.max_seconds=0.5", "regime.num_steps=2", *options)
    out = tmp_path / "out"
    assert run("audiocaps", out, root, *TINY, f"dataset.family={family}", *more) == 0
    assert f"{family}: train 1" in capsys.readouterr().err
    result = json.loads((out / "retrieval.json").read_text())
    assert result["dataset"] == family and result["splits"]["valid"]["clips"] >= 4


@pytest.mark.slow
def test_audiocaps_starts_from_a_beats_checkpoint(run: Run, tmp_path: Path, capsys) -> None:
    root = write_audiocaps(tmp_path / "AudioCaps")
    torch.manual_seed(5)
    config = BeatsConfig(**AUDIO, dropout=0.0, attention_dropout=0.0, dropout_input=0.0)
    beats = BeatsEncoder(config)
    save_official(beats, tmp_path / "beats.pt")
    text = [option for option in TINY if "audio" not in option]
    source = f"model.config_overrides.audio.config.checkpoint={tmp_path / 'beats.pt'}"
    options = ("dataset.max_seconds=0.5", "regime.num_steps=2", "optimizer.config.audio_lr=1e-30")
    assert run("audiocaps", tmp_path / "out", root, *text, source, *options, "init=random") == 0
    found = weights(tmp_path / "out", 2)
    for name, value in beats.state_dict().items():
        torch.testing.assert_close(found[f"model.audio.encoder.{name}"], value)

    digest = "model.config_overrides.audio.config.sha256=" + 32 * "ab"
    capsys.readouterr()
    assert run("audiocaps", tmp_path / "other", root, *text, source, digest) != 0
    assert "has SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.config_overrides.text.config.pretrained=null"], "audio encoder has no weights"),
        (
            ["model.config_overrides.audio.config.checkpoint=/nowhere/BEATs.pt"],
            "There is no BEATs checkpoint at /nowhere/BEATs.pt",
        ),
        (["model.config_overrides.text.config.pretrained=no-such-bert"], "'no-such-bert'"),
        (
            [
                "dataset.config_overrides.root=/nowhere",
                "model.config_overrides.text.config.pretrained=null",
                "tokenizer.name=null",
                "init=random",
            ],
            "/nowhere",
        ),
    ],
)
def test_what_is_absent_is_named_in_one_line(
    run: Run, tmp_path: Path, capsys, options: list[str], message: str
) -> None:
    small = [option for option in TINY if "pretrained" not in option]
    assert run("audiocaps", tmp_path / "out", tmp_path, *small, *options) != 0
    written = capsys.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1 and message in errors[0], errors


@pytest.mark.slow
def test_one_step_at_the_real_sizes(run: Run, tmp_path: Path) -> None:
    """BEATs-base and BERT-base from random weights on clips of 10 s; nothing is saved."""
    root = write_audiocaps(tmp_path / "AudioCaps", seconds=10.0)
    options = [
        "init=random",
        "criterion.config.atm_start=0",
        "model.config_overrides.text.config.pretrained=null",
        "tokenizer.name=null",
        "tokenizer.vocab_size=200",
        "dataset.batch_size=2",
        "regime.num_steps=1",
        "lr_scheduler.config.num_warmup_steps=0",
        "regime.validate_every_n_steps=null",
        "regime.checkpoint_every_n_steps=null",
        "regime.score_metric=null",
        # A processor without bfloat16 takes ten times as long with it.
        "trainer.mixed_precision.mode=off",
    ]
    assert run("audiocaps", tmp_path / "out", root, *options) == 0
    (record,) = [
        json.loads(line) for line in (tmp_path / "out/metrics/train.jsonl").read_text().splitlines()
    ]
    assert 0 < record["ATC Loss"] < 20 and 0 < record["ATM Loss"] < 5
