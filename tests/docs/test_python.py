"""Every Python block of the README and the guide runs, with what its page takes as given."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from docs.pages import PAGES, ROOT, blocks, read, run_python
from scene_folders import write_classes
from tiny_bundle import make_bundle
from trainer_world import make_clap
from transformers import (
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Trainer,
    TrainingArguments,
)

from atr_moco_plugin.evaluation.queries import QueryFigures, SplitQueries, write_queries
from atr_moco_plugin.hosts.transformers import TRAINING_ARGUMENTS
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_config
from atr_moco_plugin.retriever.card import model_card
from atr_moco_plugin.text.tokenizer import train_wordpiece

CAPTIONS = ["a dog barks", "rain falls on a roof", "a bell rings twice", "a door closes"]
# Pages whose code needs more than a call of `run_python`, and the file that runs it.
ELSEWHERE = {
    "docs/analyse.md": "tests/commands/test_analyse.py",
    "docs/cached.md": "tests/embedding_cache/test_page.py",
    "docs/compare.md": "tests/comparison/test_compare.py",
    "docs/engines.md": "tests/search/test_engines_page.py",
    "docs/fairseq2.md": "tests/docs/test_fairseq2.py",
    "docs/finetune.md": "tests/hosts/transformers/finetune/test_function.py",
    "docs/fewer_tokens.md": "tests/data/loading/test_lengths.py",
    "docs/graded.md": "tests/evaluation/test_submission.py",
    "docs/inspect.md": "tests/inspection/test_docs.py",
    "docs/learned_distance.md": "tests/retriever/test_learned_distance.py",
    "docs/laion_clap.md": "tests/hosts/laion_clap/test_laion_clap.py",
    "docs/other_libraries.md": "tests/exporting/test_docs.py",
    "docs/plugins.md": "tests/plugins/test_contracts.py",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def logged_steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_every_page_with_python_is_run_here_or_elsewhere() -> None:
    pages = {str(page.relative_to(ROOT)) for page in PAGES}
    here = set(re.findall(r"run_python\(\"([\w/.]+)\"", Path(__file__).read_text()))
    assert {page for page in pages if blocks(page, "python")} == here | ELSEWHERE.keys()
    for page, file in ELSEWHERE.items():
        assert Path(page).name in (ROOT / file).read_text(), file


@pytest.fixture
def clap_user(tmp_path: Path) -> Path:
    """A folder with what the page takes as given, under the names it uses: a tiny model where the
    hub's would be, two tables and their audio."""
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
def test_the_readme(clap_user: Path, tiny_model: Callable, tiny_batch: Callable) -> None:
    name = "laion/clap-htsat-unfused"
    batch = tiny_batch()
    given = {
        "torch": torch,
        "Trainer": Trainer,
        "clap": ClapModel.from_pretrained(name),
        "tokenizer": AutoTokenizer.from_pretrained(name),
        "extractor": ClapFeatureExtractor.from_pretrained(name),
        "arguments": TrainingArguments("out", **TRAINING_ARGUMENTS, max_steps=1, report_to="none"),
        "pairs": [
            {"audio": f"train{i}.wav", "caption": caption, "clip_id": i, "caption_id": i}
            for i, caption in enumerate(CAPTIONS)
        ],
        "two_towers": tiny_model(),
        "batch": SimpleNamespace(**batch),
    }
    names = run_python("README.md", given)
    names["trainer"].train()
    names["loss"].backward()
    names["optimizer"].step()
    assert int(names["model"].criterion.num_steps) == 1
    assert len(names["criterion"].audio_queue) == len(batch["clip_ids"])


def test_any_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="loss of step 3 is nan.*audio embeddings of 5[.]"):
        names = run_python("docs/any_loop.md")
    assert names["guard"].skipped == 1
    assert len(names["criterion"].audio_queue) == 64
    assert logged_steps(tmp_path / "moco/rank.jsonl") == [50, 100]
    assert logged_steps(tmp_path / "clap/rank.jsonl") == [1]
    measure, pairs = capsys.readouterr().out.splitlines()
    assert 1 < float(measure) < 64
    assert "'alignment'" in pairs and "None" not in pairs


def test_freezing() -> None:
    clap = make_clap()
    clap.text_model.encoder.layer.extend(copy.deepcopy(clap.text_model.encoder.layer[0])
                                         for _ in range(5))  # fmt: skip
    names = run_python("docs/freezing.md", {"clap": clap})
    still = {n for n, p in names["model"].named_parameters() if not p.requires_grad}
    assert still and all(name.startswith("text.encoder.") for name in still)
    text = names["trainer_model"].criterion.model.text
    trained = {name for name, p in text.encoder.named_parameters() if p.requires_grad}
    assert trained == {"pooler.dense.weight", "pooler.dense.bias"}


def test_adapters(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra peft")
    names = run_python("docs/adapters.md", {"clap": make_clap()})
    assert not any("lora" in name for name in names["model"].state_dict())
    assert any("lora" in name for name in names["trained"].state_dict())
    plain = ClapModel.from_pretrained(tmp_path / "clap-mine")
    assert plain.state_dict().keys() == make_clap().state_dict().keys()


def test_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = re.findall(r"```\n(file_name,.*?)```", read("docs/data.md"), re.S)
    (tmp_path / "PATH/TO/AUDIO/dogs").mkdir(parents=True)
    (tmp_path / "PATH/TO/table.csv").write_text(table)
    for name in ("dogs/001.wav", "rain.flac"):
        soundfile.write(f"PATH/TO/AUDIO/{name}", np.full(8000, 0.1 + 0.1 * len(name) / 20), 8000)
    data = run_python("docs/data.md")["data"]
    assert "train 1 clips x 2 captions" in capsys.readouterr().out
    assert [clip.captions for clip in data.clips("valid")] == [("Rain on a roof",)]


def test_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "sounds", ["dog_bark", "rain", "siren"])
    waveform = run_python("docs/scenes.md")["waveform"]
    assert waveform.shape == (80_000,)
    assert re.search("dog bark|rain|siren", capsys.readouterr().out)


def test_large_batches(tiny_model: Callable, tiny_batch: Callable) -> None:
    names = run_python("docs/large_batches.md", {"model": tiny_model(), "batch": tiny_batch(4)})
    assert all(p.grad is not None for p in names["criterion"].model.audio.parameters())


def test_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    cluster = {"a2t": torch.arange(3), "t2a": torch.arange(6) // 2}
    systems = {}
    for way, queries in cluster.items():
        rank = torch.randint(1, 4, (len(queries),), generator=generator)
        systems[way] = {"dual": QueryFigures(rank, 1 / rank.double(), rank - 1)}
    clips, captions = ("a.wav", "b.wav", "c.wav"), tuple(f"sound {i}" for i in range(6))
    split = SplitQueries("toy test", clips, captions, "", True, cluster, systems)
    write_queries(tmp_path / "RUN" / "queries.safetensors", {"test": split})
    names = run_python("docs/evaluation.md")
    interval, worst = capsys.readouterr().out.splitlines()
    assert interval.startswith("58 % between 17 and 90") and worst.startswith("sound ")
    assert 0 < names["low"] < 7 / 12 < names["high"] < 1


def test_corrections(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python("docs/corrections.md")
    assert names["scores"].shape == (500, 100)
    assert "skewness" in capsys.readouterr().out


def test_operations() -> None:
    class MyQuantizedTensor:
        """Stands for the class of a plugin."""

    with torch.serialization.safe_globals([]):
        run_python("docs/operations.md", {"torch": torch, "MyQuantizedTensor": MyQuantizedTensor})
        assert MyQuantizedTensor in torch.serialization.get_safe_globals()


@pytest.mark.filterwarnings("ignore:The queue has 16,384 rows")
def test_transformers(clap_user: Path) -> None:
    names = run_python("docs/transformers.md")
    assert logged_steps(clap_user / "runs/clap/rank.jsonl") == [1, 2, 3]
    history = names["trainer"].state.log_history
    assert [entry["step"] for entry in history if "loss_atc" in entry] == [1, 2, 3]
    assert names["metrics"]["eval_clips"] == 4 and names["metrics"]["eval_captions"] == 8
    assert names["plain"].config.projection_dim == 12
    assert names["model"].criterion.model.embed_dim == 256


def test_retriever(clap_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clap_user / "sounds").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).normal(0, 0.1, 40_000)
        soundfile.write(clap_user / "sounds" / f"{number}.wav", noise, 16_000)
    names = run_python("docs/retriever.md")
    assert capsys.readouterr().out.count(".wav\n") == 3
    assert names["spans"] == [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]
    assert names["best"][1] in names["spans"]
    assert names["label"].labels == ["dog", "rain"]


def test_bundles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "models" / "esc50", origin={"criterion": "moco_atc"})
    names = run_python("docs/bundles.md")
    assert capsys.readouterr().out.endswith("1.0 0.07 moco_atc\n")
    mine = AudioTextRetriever.from_pretrained("models/mine", device="cpu")
    assert mine.window_seconds == 5.0 and names["config"].sample_rate == mine.sample_rate
    # The card's own code runs too.
    card = model_card(read_config(bundle), title=str(bundle))
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    for name in ("a.wav", "b.wav"):
        soundfile.write(name, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    exec(code, {})
    assert "tensor([[" in capsys.readouterr().out
