"""The scripts in examples/ run, and so does all code on the pages about hosts."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from atr_moco_plugin.text.tokenizer import train_wordpiece

ROOT = Path(__file__).parents[1]
CAPTIONS = ["a dog barks", "rain falls on a roof", "a bell rings twice", "a door closes"]


def run_example(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def logged_steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("name", "lines"), [("clap_trainer.py", 80), ("plain_loop.py", 60)])
def test_the_scripts_are_short(name: str, lines: int) -> None:
    text = (ROOT / "examples" / name).read_text()
    assert len(text.splitlines()) <= lines


def test_the_trainer_script_runs(tmp_path: Path) -> None:
    out = run_example("clap_trainer.py", str(tmp_path), "--steps", "10")
    figures = re.findall(r"^(\w+) +([\d.]+) -> +([\d.]+)$", out, re.M)
    assert [name for name, *_ in figures] == ["a2t_r1", "a2t_r10", "t2a_r1", "t2a_r10", "r_sum"]
    assert "'loss_atm'" in out and "'loss'" in out
    assert logged_steps(tmp_path / "rank.jsonl") == [10]
    assert (tmp_path / "checkpoint-10" / "model.safetensors").exists()
    assert ClapModel.from_pretrained(tmp_path / "clap").config.projection_dim == 64


def test_the_plain_loop_runs(tmp_path: Path) -> None:
    out = run_example("plain_loop.py", str(tmp_path), "1")
    assert re.search(r"before: r_sum [\d.]+ of 600\nepoch 1: loss .*\nafter: r_sum", out)
    assert logged_steps(tmp_path / "rank.jsonl") == [5]


def blocks_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    assert text.count("```") % 2 == 0
    return re.findall(r"```python\n(.*?)```", text, re.S)


def run_blocks(page: str) -> dict[str, object]:
    """Run the blocks of a page one after another, as a reader would."""
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks_of(page), start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


def test_the_page_on_data_opens_files_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/data.md").read_text()
    (table,) = re.findall(r"```\n(file_name,.*?)```", page, re.S)
    (tmp_path / "PATH/TO/AUDIO/dogs").mkdir(parents=True)
    (tmp_path / "PATH/TO/table.csv").write_text(table)
    for name in ("dogs/001.wav", "rain.flac"):
        soundfile.write(f"PATH/TO/AUDIO/{name}", np.full(8000, 0.1 + 0.1 * len(name) / 20), 8000)
    data = run_blocks("data.md")["data"]
    assert "train 1 clips x 2 captions" in capsys.readouterr().out
    assert [clip.captions for clip in data.clips("valid")] == [("Rain on a roof",)]


@pytest.fixture
def clap_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page takes as given, under the names it uses: a tiny model where the
    hub's would be, two tables and their audio."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "laion" / "clap-htsat-unfused"
    tokenizer = train_wordpiece(CAPTIONS)
    tokenizer.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=8, sampling_rate=8000, hop_length=512, max_length_s=1, fft_window_size=256,
        frequency_max=4000, truncation="rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 80,
            "pad_token_id": 0}  # fmt: skip
    audio = {"num_mel_bins": 8, "spec_size": 16, "window_size": 2, "patch_embeds_hidden_size": 8,
             "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]}  # fmt: skip
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    ClapModel(config).save_pretrained(folder)
    rng = np.random.default_rng(0)
    for table in ("train", "valid"):
        with (tmp_path / f"{table}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "caption"])
            for number, caption in enumerate(CAPTIONS):
                name = f"{table}{number}.wav"
                soundfile.write(name, rng.normal(0, 0.1, 8000), 8000)
                writer.writerows([[name, caption], [name, f"{caption} again"]])
    return tmp_path


@pytest.mark.filterwarnings("ignore:The queue has 16,384 rows")
def test_the_page_on_transformers_runs(clap_user: Path) -> None:
    names = run_blocks("transformers.md")
    assert logged_steps(clap_user / "runs/clap/rank.jsonl") == [1, 2, 3]
    history = names["trainer"].state.log_history
    assert [entry["step"] for entry in history if "loss_atm" in entry] == [1, 2, 3]
    assert names["metrics"]["eval_clips"] == 4 and names["metrics"]["eval_captions"] == 8
    assert names["plain"].config.projection_dim == 12
    assert names["model"].criterion.model.embed_dim == 256


def test_the_page_on_any_loop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="loss of step 3 is nan.*audio embeddings of 5[.]"):
        names = run_blocks("any_loop.md")
    assert names["guard"].skipped == 1
    assert len(names["criterion"].audio_queue) == 64
    assert logged_steps(tmp_path / "moco/rank.jsonl") == [50, 100]
    assert logged_steps(tmp_path / "clap/rank.jsonl") == [1]
    measure, pairs = capsys.readouterr().out.splitlines()
    assert 1 < float(measure) < 64
    assert "'alignment'" in pairs and "None" not in pairs
