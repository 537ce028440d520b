"""The options `qrels` and `dcase` of the evaluation recipe on a real, tiny run."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.evaluation.graded import GRADED_FIGURES
from atr_moco_plugin.evaluation.queries import read_queries

Evaluation = Callable[..., int]


@pytest.fixture
def judged(trained: Path, evaluation: Evaluation, tmp_path: Path) -> Path:
    """A table with grades for half of the captions of the split, each caption once."""
    assert evaluation(tmp_path / "plain", f"run={trained}", "rerank_k=[]") == 0
    split = read_queries(tmp_path / "plain" / "queries.safetensors")["valid"]
    rng = torch.Generator().manual_seed(0)
    path = tmp_path / "judged.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "clip", "grade"])
        for caption in dict.fromkeys(split.captions[::2]):
            grades = torch.randint(0, 4, (len(split.clips),), generator=rng).tolist()
            grades[int(torch.randint(0, len(grades), (1,), generator=rng))] = 1
            writer.writerows([caption, *pair] for pair in zip(split.clips, grades, strict=True))
    return path


def test_figures_are_those_of_trec_eval_on_the_written_files(
    evaluation: Evaluation, trained: Path, tmp_path: Path, judged: Path, capsys
) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs the extra `test`")
    out = tmp_path / "out"
    assert evaluation(out, f"run={trained}", "rerank_k=[2,4]", f"qrels={judged}") == 0
    graded = json.loads((out / "retrieval.json").read_text())["splits"]["valid"]["graded"]
    assert graded["qrels"] == "judged.csv" and graded["skipped"] == 0
    assert len(graded["systems"]) == 7
    for system, ends in graded["intervals"]["systems"].items():
        for figure, (low, high) in ends.items():
            assert low <= graded["systems"][system][figure] <= high
    with (out / "trec" / "t2a_graded.qrels").open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    assert len(qrels) == graded["queries"]
    measures = {"map_cut.10,16", "ndcg_cut.10", "success.5", "Rprec"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, measures)
    for system, figures in graded["systems"].items():
        with (out / "trec" / f"t2a_{system}.run").open() as file:
            found = evaluator.evaluate(pytrec_eval.parse_run(file)).values()
        for name in GRADED_FIGURES:
            mean = 100 * sum(query[name] for query in found) / len(found)
            assert figures[f"t2a_{name}"] == pytest.approx(mean, abs=1e-9), (system, name)
    printed = capsys.readouterr().out
    assert "Relevance of judged.csv" in printed and "map_cut_16" in printed


def test_dcases_files(evaluation: Evaluation, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["rerank_k=[2]", "dcase=[dual,reranked_k2]", "save_embeddings=true"]
    assert evaluation(out, f"run={trained}", *options) == 0
    assert sorted(path.name for path in (out / "dcase").iterdir()) == [
        f"t2a_{name}.{what}.csv" for name in ("dual", "reranked_k2") for what in ("files", "scores")
    ]
    with safe_open(out / "embeddings.safetensors", "pt") as file:
        audio, text = file.get_tensor("audio"), file.get_tensor("text")
        keys = json.loads(file.metadata()["clips"])
    captions = read_queries(out / "queries.safetensors")["valid"].captions
    with (out / "dcase" / "t2a_dual.scores.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", *keys]
    assert [row[0] for row in rows] == list(dict.fromkeys(captions))
    for row in rows:
        cosines = text[captions.index(row[0])].double() @ audio.double().T
        assert torch.equal(torch.tensor([float(x) for x in row[1:]]), cosines.float())
    assert evaluation(out, f"run={trained}", "rerank_k=[]", "overwrite=true") == 0
    assert not (out / "dcase").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dcase=[duel]"], "`dcase` names the system 'duel', but this evaluation has dual, rera"),
        (["dcase=[reranked_k5]"], "has dual, reranked_k2,"),
        (["qrels=nowhere.csv"], "nowhere.csv: there is no such file of relevance judgements"),
        (["qrels=judged.csv", "split=test"], "rows ask for what is no caption of this split"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_encoded(
    evaluation: Evaluation,
    trained: Path,
    judged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(judged.parent)
    assert evaluation(tmp_path / "out", f"run={trained}", "rerank_k=[2]", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
