"""Corrections of the evaluation recipe, on the checkpoint of a real, tiny training run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from sound_folders import write_sound

from atr_moco_plugin.evaluation.corrections import nnn_offsets
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, read_queries

Evaluation = Callable[..., int]
ALL = "correct=[nnn,inverted_softmax,qb_norm,csls,sinkhorn,dual_softmax,csls_test]"


def figures(out: Path, split: str = "test") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "retrieval.json").read_text())["splits"][split]
    return found


def embeddings(out: Path) -> dict[str, torch.Tensor]:
    with safe_open(out / "embeddings.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in ("audio", "text")}


def test_corrections_have_figures_of_their_own(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["split=test", "rerank_k=[3]", ALL, "dcase=[nnn]"]
    assert evaluation(tmp_path, f"run={trained}", *options) == 0
    result = figures(tmp_path)
    corrections = result["corrections"]
    assert list(corrections["inductive"]) == ["nnn", "inverted_softmax", "qb_norm", "csls"]
    assert list(corrections["transductive"]) == ["sinkhorn", "dual_softmax", "csls_test"]
    assert corrections["bank"]["split"] == "train"
    assert corrections["bank"]["clips"] == corrections["bank"]["of_clips"]
    assert corrections["chosen_on"]["split"] == "valid"
    shared = {key for key in result["dual"] if key not in ("clips", "captions")}
    for name, found in (corrections["inductive"] | corrections["transductive"]).items():
        assert found.keys() == shared, name
        assert corrections["intervals"][name].keys() == {
            key for key in found if "skipped" not in key
        }
        low, high = corrections["intervals"][name]["t2a_r5"]
        assert low <= found["t2a_r5"] <= high
        gain, *_ = corrections["gains"][name]["t2a_r5"]
        assert gain == pytest.approx(found["t2a_r5"] - result["dual"]["t2a_r5"], abs=1e-3)
        assert corrections["hubness"][name]["t2a"]["mean"] == result["hubness"]["t2a"]["mean"]
    printed = capsys.readouterr().out
    plain, transductive = printed.index("NNN"), printed.index("transductive")
    assert plain < transductive < printed.index("Sinkhorn")
    assert "Parameters are chosen by mAP10 on valid (6 clips)" in printed
    # What each query got is kept, but never of a transductive correction beside the others.
    kept = read_queries(tmp_path / QUERIES_FILE)["test"].systems["t2a"]
    assert {"dual", "nnn", "nnn_dup", "qb_norm", "csls"} <= kept.keys()
    assert not {"sinkhorn", "dual_softmax", "csls_test"} & kept.keys()
    assert (tmp_path / "trec" / "t2a_nnn.run").exists()
    assert (tmp_path / "dcase" / "t2a_nnn.scores.csv").exists()
    assert not (tmp_path / "trec" / "t2a_sinkhorn.run").exists()


def test_the_figures_are_those_of_the_formula(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        options = ["rerank_k=[]", "save_embeddings=true", f"split={split}", "trec_depth=0"]
        assert evaluation(tmp_path / split, f"run={trained}", *options) == 0
    options = ["rerank_k=[]", "split=test", "correct=[nnn]"]
    assert evaluation(tmp_path / "corrected", f"run={trained}", *options) == 0
    corrections = figures(tmp_path / "corrected")["corrections"]
    chosen = corrections["chosen"]["nnn"]["t2a"]
    bank, test = embeddings(tmp_path / "train"), embeddings(tmp_path / "test")
    texts = torch.unique(bank["text"], dim=0)
    assert len(texts) == corrections["bank"]["captions"]
    scores = (test["text"].double() @ test["audio"].double().T).float().double()
    scores -= chosen["alpha"] * nnn_offsets(texts, test["audio"], chosen["k"])
    first = read_queries(tmp_path / "corrected" / QUERIES_FILE)["test"].systems["t2a"]["nnn"].first
    assert torch.equal(scores.argmax(dim=1), first)


def test_every_evaluation_has_hubness(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_training = json.loads((trained / "retrieval.json").read_text())["splits"]["test"]
    assert evaluation(tmp_path, f"run={trained}", "split=test", "rerank_k=[]") == 0
    found = figures(tmp_path)
    assert "corrections" not in found
    assert found["hubness"] == of_training["hubness"]
    for way, queries, items in (("a2t", 6, 30), ("t2a", 30, 6)):
        assert found["hubness"][way]["mean"] == pytest.approx(min(10, items) * queries / items)
        assert found["hubness"][way]["largest_name"]
    assert "Hubness: how often an item is among the best 10" in capsys.readouterr().out


def test_a_bank_has_at_most_so_many_clips(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    options = ["split=test", "rerank_k=[]", "correct=[csls]", "correct_bank_size=3"]
    assert evaluation(tmp_path, f"run={trained}", *options) == 0
    bank = figures(tmp_path)["corrections"]["bank"]
    assert bank["clips"] == 3 < bank["of_clips"] and bank["captions"] <= 15


def test_transductive_corrections_need_no_bank(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    options = ["split=test", "rerank_k=[]", "correct=[sinkhorn]", "correct_bank=nowhere"]
    assert evaluation(tmp_path, f"run={trained}", *options) == 0
    assert figures(tmp_path)["corrections"]["bank"] is None


def test_recordings_that_are_evaluated_take_no_part(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The last of each split is the first of the next.
    splits = {"train": range(6), "valid": range(5, 10), "test": range(9, 13)}
    rows = [f"{n}.wav,sound {n},{split}\n" for split, clips in splits.items() for n in clips]
    (tmp_path / "manifest.csv").write_text("file_name,caption,split\n" + "".join(rows))
    for number in range(13):
        write_sound(tmp_path / f"{number}.wav", number)
    options = [
        "split=test", "rerank_k=[]", "correct=[nnn]", "allow_unknown=true",
        "dataset.family=manifest", f"dataset.config_overrides.root={tmp_path}",
        "dataset.config_overrides.allow_shared_audio=true",
    ]  # fmt: skip
    assert evaluation(tmp_path / "out", f"run={trained}", *options) == 0
    found = figures(tmp_path / "out")["corrections"]
    assert (found["chosen_on"]["clips"], found["bank"]["clips"]) == (4, 5)
    said = " ".join(capfd.readouterr().err.split())
    assert "split 'valid': 1 clips are recordings of 'test' too and take no part" in said
    assert "split 'train': 1 clips are recordings of 'test' or 'valid' too" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["correct=[nn]"], "`correct` has 'nn', expected any of nnn, inverted_softmax"),
        (["correct=nnn"], "write a list, such as correct=[nnn]"),
        (
            ["split=test", "correct=[sinkhorn]", "dcase=[sinkhorn]"],
            "`dcase` names the system 'sinkhorn'",
        ),
        (
            ["split=test", "correct=[csls,nnn]", "dcase=[dual_dup]"],
            "but this evaluation has dual, csls, nnn; name one of them",
        ),
        (["correct=[nnn]"], "`split` and `correct_chosen_on` are both 'valid'"),
        (["correct=[sinkhorn]"], "never chosen on what is evaluated"),
        (["split=test", "correct=[nnn]", "correct_bank=test"], "`correct_bank` and `split`"),
        (["split=test", "correct=[nnn]", "correct_bank=valid"], "`correct_bank` and `correct_ch"),
        (["split=test", "correct=[nnn]", "correct_bank_size=1"], "`correct_bank_size` is 1"),
        (["split=test", "correct=[nnn]", "correct_bank=trian"], "has no split 'trian'"),
    ],
)
def test_refused_in_one_sentence(
    evaluation: Evaluation,
    trained: Path,
    tmp_path: Path,
    options: list[str],
    said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert evaluation(tmp_path / "out", f"run={trained}", "rerank_k=[]", *options) != 0
    captured = capfd.readouterr()
    assert said in " ".join((captured.err + captured.out).split())
    assert not (tmp_path / "out" / "retrieval.json").exists()


@pytest.mark.slow
def test_two_processes_find_what_one_does(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    options = [f"run={trained}", "split=test", "batch_size=2", "rerank_k=[]", ALL]
    options.append("common.torch.num_threads=1")
    assert evaluation(tmp_path / "one", *options) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.evaluate", str(tmp_path / "two"), "--no-rich"]
    subprocess.run(
        [*command, *recipe, "--config", *options],
        check=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    for part in ("inductive", "transductive", "intervals", "gains"):
        assert one["corrections"][part] == two["corrections"][part]
