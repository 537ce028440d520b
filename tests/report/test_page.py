"""The page of a run: whole runs, runs with parts missing, and texts that try to be markup."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.evaluation import chance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.report import Examples, ReportError, collect_examples, write_report
from atr_moco_plugin.report.__main__ import main

VOID = {"meta", "br", "link", "img", "hr", "input"}
EVIL = """<script>alert(1)</script>" onmouseover="alert(2)' onclick='{{ 123 * 1000 }}"""
CONFIG = """\
dataset: {name: null, family: esc50, valid_split: valid, config_overrides: {root: some/folder}}
criterion: {name: moco_atc_atm, config: {queue_size: 64, temperature: 0.07}}
regime: {num_steps: 40, score_metric: r_sum}
common: {seed: 7, metric_recorders: {wandb: {api_key: PRECIOUS}}}
"""


def split(word: str = "text") -> RetrievalSet:
    clips = [
        Clip(f"clip {word} {i}", (f"{word} {i} 0", f"{word} {i} 1"), None, f"{word} {i % 5}")
        for i in range(9)
    ]
    return AudioTextDataset("d", {"valid": clips}).retrieval_set("valid")


def make_run(folder: Path, word: str = "text", criterion: str = "moco_atc_atm") -> Path:
    """A run's folder, as the recipes leave it."""
    generator = torch.Generator().manual_seed(0)
    (folder / "metrics").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.replace("moco_atc_atm", criterion))
    queues = criterion != "atc"
    train, valid = [], []
    for step in range(2, 41, 2):
        record = {"Time": "2026-01-01T00:00:00+00:00", "Step": step, "Loss": 6 / step}
        record |= {"ATC Loss": 5 / step, "Temperature": 0.07, "Gradient Norm": 1 + 1 / step}
        record |= {"Learning Rate": [1e-3 / step, 1e-4 / step, 1e-3 / step], "Total Time": 1 + step}
        if queues:
            record |= {"ATM Loss": 1 / step, "ATM Accuracy": 0.7, "Alpha": 0.4, "Queue Fill": 1.0}
        train.append(record)
        if step % 10 == 0:
            names = ("A2T R@1", "A2T R@5", "T2A R@1", "T2A R@5")
            recalls = {name: 50 + step for name in names}
            valid.append({"Step": step, "R-sum": 300.0 + step, **recalls})
    write_lines(folder / "metrics" / "train.jsonl", train)
    write_lines(folder / "metrics" / "valid.jsonl", valid)
    if queues:
        source = torch.zeros(30, 8)
        logger = RankLogger({"audio": source, "text": source}, folder / "rank.jsonl")
        for step in range(2, 41, 2):
            source.copy_(torch.randn(30, 8, generator=generator) + 1)
            logger.log(step)

    retrieval_set = split(word)
    scores = torch.randn(9, 18, generator=generator)
    dual = retrieval_metrics(
        scores, retrieval_set.caption_to_audio, caption_ids=retrieval_set.caption_ids
    )
    result = {
        "clips": 9,
        "captions": 18,
        "dual": dual,
        "chance": chance_metrics(RelevanceMatrix(retrieval_set.relevance)),
        "intervals": {
            "level": 0.95,
            "replicates": 1_000,
            "clusters": 9,
            "dual": {"a2t_r1": [12.34, 56.78]},
        },
    }
    if queues:
        result |= {"reranked": dual, "rerank_k": 3}
    result["rank"] = RankLogger({"audio": torch.randn(9, 8, generator=generator)}).log(0)
    summary = {"criterion": criterion, "seed": 7, "checkpoint": "checkpoints/step_30"}
    summary |= {"valid_score": 330.5, "splits": {"valid": result, "test": result}}
    (folder / "retrieval.json").write_text(json.dumps(summary))
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 8_000).astype("f4")
    collect_examples(scores, retrieval_set, lambda clip: noise, 16_000).save(folder)
    return folder


def without_curves(run: Path) -> Path:
    """A run whose page is drawn in no time."""
    for name in ("rank.jsonl", "metrics/train.jsonl", "metrics/valid.jsonl"):
        (run / name).unlink()
    return run


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


class Page(HTMLParser):
    """Elements with their attributes and all text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole run, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    """The page of the whole run, for looking at."""
    return read(whole)


def test_the_score_that_chose_the_checkpoint_has_its_name(run: Path) -> None:
    without_curves(run)
    changed = CONFIG.replace("score_metric: r_sum", "score_metric: t2a_medr")
    assert changed != CONFIG
    (run / "config.yaml").write_text(changed)
    summary = json.loads((run / "retrieval.json").read_text())
    (run / "retrieval.json").write_text(json.dumps(summary | {"valid_score": -3.5}))
    assert "step 30, validation t2a_medr 3.5" in read(run).text


def test_a_whole_run_has_everything(whole: Path, page: Page) -> None:
    assert (whole / "report" / "index.html").stat().st_size < 1_000_000
    assert not any(said in page.text for said in MISSING.values())
    for words in (
        "moco_atc_atm on esc50", "Seed", "step 30, validation R-sum 330.5", "40 of 40",
        "9 clips, 18 captions", "12.3–56.8", "bootstrap over 9 clips with their captions",
        "dual encoder (dup)", "re-ranked", "chance", "Training loss",
        "Learning rate", "Temperature", "Soft targets and queue", "R-sum on validation",
        "Singular values, audio, raw", "Singular values, text, centred", "random, 30 × 8", "RankMe",
        "12 of 20 logged steps", "Similarity matrix", "Text to audio, best", "Audio to text, worst",
        "right clip at rank 1", "criterion.config.queue_size=64", "regime.num_steps=40",
    ):  # fmt: skip
        assert words in page.text, words
    labels = [figure["aria-label"] for figure in page.all("svg")]
    assert len(labels) == 6 + 3 + 4 + 7 + 1 and all(labels)
    # A reading aid for each.
    assert len(page.all("figcaption")) == len(labels)
    # The training curve's first and last values are in words too.
    assert "Loss 3 at step 2, 0.15 at step 40" in labels[0]


def test_the_page_asks_nobody_and_runs_nothing(whole: Path, page: Page) -> None:
    text = (whole / "report" / "index.html").read_text()
    assert "http:" not in text and "https:" not in text
    for tag in ("script", "link", "iframe", "img", "object"):
        assert not page.all(tag)
    policy = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert policy[0].startswith("default-src 'none'")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_sound_can_be_decoded(page: Page) -> None:
    sounds = page.all("audio")
    assert len(sounds) >= 8 * 3 + 5
    for sound in {sound["src"]: sound for sound in sounds}.values():
        data = base64.b64decode(sound["src"].partition(",")[2])
        samples, rate = soundfile.read(io.BytesIO(data))
        assert rate == 16_000 and len(samples) > 7_000
        assert "controls" in sound and sound["aria-label"]


def test_the_same_files_give_the_same_bytes(whole: Path, page: Page, run: Path) -> None:
    path = write_report(run)
    assert path == run / "report" / "index.html"
    assert path.read_bytes() == (whole / "report" / "index.html").read_bytes()
    assert not list((run / "report").glob(".*"))


def test_markup_in_texts_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", word=EVIL)
    summary = json.loads((run / "retrieval.json").read_text())
    summary |= {"criterion": EVIL, "checkpoint": EVIL}
    summary["splits"][EVIL] = summary["splits"]["valid"]
    (run / "retrieval.json").write_text(json.dumps(summary))
    record = json.loads((run / "rank.jsonl").read_text().splitlines()[-1])
    record["sources"]["<b>&"] = record["sources"]["audio"]
    write_lines(run / "rank.jsonl", [record])
    (run / "config.yaml").write_text(CONFIG + f"evil: {json.dumps(EVIL)}\n")

    page = read(run)
    assert not page.all("script") and "123000" not in page.text
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    # Captions, clip keys, labels, the criterion, a split, a source and the configuration.
    for shown in (f"“{EVIL} ", f"clip {EVIL} ", f"{EVIL} 3: ", f"{EVIL} on esc50", f"Split {EVIL}",
                  "Singular values, <b>&, raw", f"evil={EVIL}"):  # fmt: skip
        assert shown in page.text, shown
    assert any(EVIL in (sound["aria-label"] or "") for sound in page.all("audio"))


def test_names_that_are_no_unicode_and_marks_of_direction(tmp_path: Path) -> None:
    word = "\udce9\u202egpj.exe"
    page = read(without_curves(make_run(tmp_path / "run", word=word)))
    assert "\\udce9\u202egpj.exe" in page.text
    # What turns the direction of a caption ends with it.
    assert len(page.all("bdi")) >= len(page.all("audio"))


def test_a_sound_is_no_link(run: Path) -> None:
    file = run / "report" / "examples.json"
    values = json.loads(file.read_text())
    for uri in ("javascript:alert(1)", "file:///etc/passwd", "//x.y/a.mp3"):
        values["sounds"][0]["uri"] = uri
        with pytest.raises(ValueError, match="is no data: address of audio"):
            Examples.from_dict(values)
    file.write_text(json.dumps(values))
    page = read(without_curves(run))
    assert uri not in (run / "report" / "index.html").read_text()
    assert "is no data: address of audio" in page.text


MISSING = {
    "retrieval.json": "There are no retrieval figures",
    "metrics/train.jsonl": "There are no training curves",
    "metrics/valid.jsonl": "There are no recall curves",
    "rank.jsonl": "the run has not logged one yet, or its rank hook is switched off",
    "report/examples.json": "There is no similarity matrix and there are no examples",
    "config.yaml": "There is no config.yaml",
}


@pytest.mark.parametrize("kept", [name for name in MISSING if not name.startswith("report/")])
def test_what_is_missing_is_said(run: Path, kept: str) -> None:
    for name in MISSING:
        if name != kept:
            (run / name).unlink()
    text = read(run).text
    for name, said in MISSING.items():
        assert (said in text) == (name != kept), name


def test_a_split_that_failed_and_clips_that_were_left_out(run: Path) -> None:
    summary = json.loads((run / "retrieval.json").read_text())
    del summary["splits"]["test"]
    summary["splits"]["valid"]["unreadable"] = 2
    summary["failed"] = {"test": "clip 'a.wav' is <b>damaged</b>"}
    (run / "retrieval.json").write_text(json.dumps(summary))
    text = read(without_curves(run)).text
    assert "No figures on test: clip 'a.wav' is <b>damaged</b>" in text
    assert "9 clips, 18 captions; 2 clips that cannot be decoded are left out" in text
    assert "re-ranked" in text


def test_a_criterion_without_queues(tmp_path: Path) -> None:
    page = read(make_run(tmp_path / "run", criterion="atc"))
    assert "The criterion atc has no matching loss and no soft targets of a momentum model and " \
           "no queues." in page.text  # fmt: skip
    assert "(rank.jsonl): the criterion atc has no queues to measure." in page.text
    assert "Nothing was re-ranked: " in page.text and "re-ranked as" not in page.text


def test_a_run_that_was_stopped_at_its_first_report(run: Path) -> None:
    for name in ("retrieval.json", "report/examples.json", "metrics/valid.jsonl"):
        (run / name).unlink()
    for name in ("rank.jsonl", "metrics/train.jsonl"):
        first, second = (run / name).read_text().splitlines()[:2]
        (run / name).write_text(f"{first}\n{second[:-20]}")
    page = read(run)
    assert "2 of 40" in page.text and "1 of 1 logged steps" in page.text
    assert len(page.all("svg")) == 6 + 4 + 7


def test_values_that_are_not_numbers(run: Path) -> None:
    train = [json.loads(line) for line in (run / "metrics/train.jsonl").read_text().splitlines()]
    for record in train:
        record |= {"Loss": float("nan"), "ATC Loss": None, "Learning Rate": 1e-3}
    train[3] |= {"Temperature": float("inf"), "Gradient Norm": 0.0}
    write_lines(run / "metrics/train.jsonl", train)
    records = [json.loads(line) for line in (run / "rank.jsonl").read_text().splitlines()]
    for record in records:
        record["sources"]["audio"]["centered"] |= {"rankme": None, "spectrum": [0.0] * 8}
        del record["sources"]["text"]["raw"]
        record["pairs"] = {}
    write_lines(run / "rank.jsonl", records)
    page = read(run)
    labels = [figure["aria-label"] for figure in page.all("svg")]
    assert labels[0].startswith("Training loss by training step: ATM Loss 0.5 at step 2")
    assert "Singular values, text, centred" in page.text
    assert "Singular values, text, raw" not in page.text
    assert "Alignment and modality gap" not in page.text


@pytest.mark.parametrize("name", ["retrieval.json", "report/examples.json", "config.yaml"])
def test_half_a_file_is_named(run: Path, name: str) -> None:
    (run / "rank.jsonl").unlink()
    content = (run / name).read_text()
    (run / name).write_text(content[: len(content) // 3])
    page = read(run)
    assert f"{name} is not readable: " in page.text and len(page.all("svg")) >= 9


def test_examples_of_another_version_are_left_out(run: Path) -> None:
    without_curves(run)
    (run / "report/examples.json").write_text('{"split": "valid"}')
    assert "report/examples.json cannot be shown: not the examples" in read(run).text


def test_nothing_secret_is_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_curves(run)
    monkeypatch.setenv("SOME_TOKEN", "PRECIOUS")
    text = write_report(run).read_text()
    assert "PRECIOUS" not in text and "common.metric_recorders.wandb.api_key=(hidden)" in text
    assert "dataset.config_overrides.root=some/folder" in text


@pytest.mark.slow
def test_a_long_run_stays_small(run: Path) -> None:
    record = json.loads((run / "rank.jsonl").read_text().splitlines()[-1])
    rng = np.random.default_rng(0)
    records = []
    for step in range(1, 61):
        sources = {}
        for name, source in record["sources"].items():
            kinds = {}
            for kind in ("raw", "centered"):
                spectrum = np.sort(rng.uniform(0, 1, 256))[::-1].round(6).tolist()
                kinds[kind] = {**source[kind], "rankme": rng.uniform(1, 99), "spectrum": spectrum}
            sources[name] = {**source, **kinds}
        records.append({**record, "step": step, "sources": sources})
    write_lines(run / "rank.jsonl", records)
    rates = (1e-3 * np.linspace(0.1, 1, 14)).tolist()
    noise = rng.uniform(0.1, 9, 20_000)
    write_lines(
        run / "metrics/train.jsonl",
        [
            {"Step": i, "Loss": x, "Gradient Norm": x, "Learning Rate": rates}
            for i, x in enumerate(noise.tolist())
        ],
    )
    path = write_report(run)
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text())
    assert "12 of 60 logged steps" in page.text


def test_the_command_writes_it_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_curves(run)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report" / "index.html")
    assert main([str(run / "metrics")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "give the output folder of a run" in error
    assert error.count("\n") == 1


def test_a_page_that_cannot_be_written_hides_no_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_curves(run)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "config.yaml").write_text("common: {seed: 0}\n")
    (taken / "report").touch()
    assert main([str(taken), str(run / "metrics"), str(run)]) == 1
    shown = capsys.readouterr()
    assert shown.out.strip() == str(run / "report" / "index.html")
    first, second = shown.err.splitlines()
    assert first.startswith(f"error: {taken / 'report' / 'index.html'} cannot be written (")
    assert "give the output folder of a run" in second


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_a_package_the_run_is_told_how_to_get_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("atr_moco_plugin.report."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (run / "report" / "index.html").unlink(missing_ok=True)
    with pytest.raises(ReportError) as caught:
        write_report(run)
    assert f"The report needs {package}; install it with `pip install atr-moco-plugin[report]`" in \
        str(caught.value)  # fmt: skip
    assert not (run / "report" / "index.html").exists()


def test_of_an_evaluation_no_checkpoint_is_the_best_and_no_metric_is_made_up(
    tmp_path: Path,
) -> None:
    run = without_curves(make_run(tmp_path / "run"))
    (run / "config.yaml").write_text("run: some/run\nsplit: [test]\n")
    summary = json.loads((run / "retrieval.json").read_text())
    summary |= {"run": "/some/run", "checkpoint": "checkpoints/step_1", "valid_score": -12.0}
    (run / "retrieval.json").write_text(json.dumps(summary))
    text = read(run).text
    assert "Checkpoint" in text and "step 1" in text
    assert "Best checkpoint" not in text and "12.0" not in text
