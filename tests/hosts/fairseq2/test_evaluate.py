"""The evaluation recipe on the checkpoints of a real, tiny training run."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.recipe.error import RecipeError
from ruamel.yaml import YAML

from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.evaluation.metrics import query_metrics
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, read_queries
from atr_moco_plugin.evaluation.trec import clip_key
from atr_moco_plugin.hosts.fairseq2.evaluation import progress as progress_module
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import temperature_of
from atr_moco_plugin.hosts.fairseq2.evaluation.progress import progress
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint, load_model, read_state

Evaluation = Callable[..., int]
RERANKED = ("reranked", "reranked_blip", "reranked_albef")


def arguments(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    # Without it an extension that fails to register only warns.
    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")
    monkeypatch.setattr(sys, "argv", ["recipe", *values])


def figures(out: Path, split: str = "valid") -> dict:
    return json.loads((out / "retrieval.json").read_text())["splits"][split]


def test_the_result_of_training_is_found_again(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    before = json.loads((trained / "retrieval.json").read_text())
    for split in ("valid", "test"):
        out = tmp_path / split
        given = os.path.relpath(trained)  # what is written is the whole path
        assert evaluation(out, f"run={given}", f"split={split}", "rerank_k=[3]") == 0
        result = json.loads((out / "retrieval.json").read_text())
        for key in ("criterion", "seed", "checkpoint", "valid_score"):
            assert result[key] == before[key]
        assert list(result["splits"]) == [split]
        found, expected = result["splits"][split], before["splits"][split]
        for name in ("dual", *RERANKED, "chance"):
            assert found[name] == pytest.approx(expected[name])
        assert found["rank"]["sources"].keys() == expected["rank"]["sources"].keys()
        assert result["run"] == str(trained)
        assert result["dataset"]["family"] == "toy" and result["dataset"]["max_seconds"] == 1.0
        assert found["test_set"] == f"toy {split}" and "seen_by_run" not in result
        # What each query got: the same, and figures follow from it.
        theirs = read_queries(trained / QUERIES_FILE)[split]
        ours = read_queries(out / QUERIES_FILE)[split]
        assert ours.digest == theirs.digest and ours.clips == theirs.clips
        assert ours.systems["t2a"].keys() == theirs.systems["t2a"].keys() >= {"dual", "dual_dup"}
        for system in ("dual", "reranked_k3"):
            metrics = query_metrics({way: ours.systems[way][system] for way in ("a2t", "t2a")})
            shown = found["dual" if system == "dual" else "reranked"]
            assert metrics == pytest.approx({name: shown[name] for name in metrics})
            first = ours.systems["t2a"][system].first
            run = (out / "trec" / f"t2a_{system}.run").read_text().splitlines()
            listed = [clip_key(line.split()[2]) for line in run if line.split()[3] == "1"]
            assert listed == [ours.clips[item] for item in first.tolist()]
        assert found["intervals"]["clusters"] == 6
        assert found["intervals"]["dual"]["r_sum"] == expected["intervals"]["dual"]["r_sum"]
        low, high = found["intervals"]["dual"]["t2a_r5"]
        assert low <= found["dual"]["t2a_r5"] <= high
    assert read_queries(trained / QUERIES_FILE).keys() == {"valid", "test"}
    printed = capsys.readouterr().out
    assert "Retrieval on toy test: 6 clips, 30 captions" in printed
    assert "95 % from" in printed and "bootstrap over 6 clips" in printed
    assert "re-ranked as ALBEF" in printed and "RankMe" in printed


def test_the_test_split_is_evaluated_only_by_name(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    assert evaluation(tmp_path, f"run={trained}") == 0
    assert list(json.loads((tmp_path / "retrieval.json").read_text())["splits"]) == ["valid"]


def test_several_k_and_files_for_other_tools(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    options = ["rerank_k=[4,2]", "save_embeddings=true", "trec_depth=12"]
    assert evaluation(tmp_path, f"run={trained}", *options) == 0
    result = figures(tmp_path)
    assert list(result["rerank"]) == ["2", "4"] and result["rerank_k"] == 4
    assert list(result["intervals"]["rerank"]) == ["2", "4"]
    assert result["reranked"] == result["rerank"]["4"]["reranked"]
    printed = capsys.readouterr().out
    assert "The best 2 candidates re-ranked" in printed
    assert "The best 4 candidates re-ranked" in printed

    with safe_open(tmp_path / "embeddings.safetensors", "pt") as file:
        audio, text = file.get_tensor("audio"), file.get_tensor("text")
        owner = file.get_tensor("caption_to_audio")
        keys = json.loads(file.metadata()["clips"])
    assert audio.shape == (6, 12) and text.shape == (30, 12)
    expected = retrieval_metrics((audio.double() @ text.double().T).float(), owner)
    assert {name: result["dual"][name] for name in expected} == pytest.approx(expected)

    systems = ["dual", *(f"{name}_k{k}" for k in (2, 4) for name in RERANKED)]
    for way in ("a2t", "t2a"):
        qrels = [line.split() for line in (tmp_path / "trec" / f"{way}.qrels").open()]
        relevant = {(query, item) for query, _, item, _ in qrels}
        for system in systems:
            lines = [line.split() for line in (tmp_path / "trec" / f"{way}_{system}.run").open()]
            queries = {line[0] for line in lines}
            best = [line for line in lines if int(line[3]) <= 5]
            hits = {query for query, _, item, *_ in best if (query, item) in relevant}
            kind, _, k = system.rpartition("_k")
            metrics = result["rerank"][k][kind] if kind else result["dual"]
            assert 100 * len(hits) / len(queries) == pytest.approx(metrics[f"{way}_r5"])
            assert max(int(line[3]) for line in lines) == (12 if way == "a2t" else 6)
    assert {clip_key(line[0]) for line in qrels} == set(keys)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_figures_do_not_depend_on_the_batch_size(
    evaluation: Evaluation, trained: Path, tmp_path: Path, batch_size: int
) -> None:
    for name, size in (("one", batch_size), ("two", 64)):
        options = [f"batch_size={size}", "rerank_k=[2,4]", "save_embeddings=true"]
        assert evaluation(tmp_path / name, f"run={trained}", *options) == 0
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    for name in ("dual", "rerank", "chance"):
        assert one[name] == two[name]
    for name in ("audio", "text"):
        first, second = (embedding(tmp_path / x, name) for x in ("one", "two"))
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def embedding(out: Path, name: str) -> torch.Tensor:
    with safe_open(out / "embeddings.safetensors", "pt") as file:
        return file.get_tensor(name)


@pytest.mark.slow
def test_two_processes_find_what_one_does(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    # Of 6 clips in batches of 2 the first process takes two batches.
    options = [f"run={trained}", "batch_size=2", "rerank_k=[2,4]", "save_embeddings=true"]
    # Threads split sums, so their number is the same on both sides.
    options.append("common.torch.num_threads=1")
    assert evaluation(tmp_path / "one", *options) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.evaluate", str(tmp_path / "two"), "--no-rich"]
    result = subprocess.run(
        [*command, *recipe, "--config", *options],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Retrieval on toy valid") == 1
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    for name in ("dual", "rerank", "chance", "intervals"):
        assert one[name] == two[name]
    files = [(tmp_path / name / QUERIES_FILE).read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    for name in ("audio", "text"):
        assert torch.equal(embedding(tmp_path / "one", name), embedding(tmp_path / "two", name))
    for file in (tmp_path / "one" / "trec").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "trec" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("which", "name"), [("last", "step_4"), ("step_2", "step_2"), ("folder", "step_2")]
)
def test_any_checkpoint(
    evaluation: Evaluation, trained: Path, tmp_path: Path, which: str, name: str
) -> None:
    if which == "folder":
        options = [f"run={trained / 'checkpoints' / 'step_2'}"]
    else:
        options = [f"run={trained}", f"checkpoint={which}"]
    assert evaluation(tmp_path, *options, "rerank_k=[]", "trec_depth=0") == 0
    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert result["checkpoint"] == f"checkpoints/{name}"
    assert "rerank" not in figures(tmp_path) and not (tmp_path / "trec").exists()


def test_another_data_set(evaluation: Evaluation, trained: Path, tmp_path: Path) -> None:
    # The same family keeps the run's other options.
    options = ["dataset.config_overrides.num_valid=9", "dataset.max_seconds=2", "rerank_k=[2]"]
    assert evaluation(tmp_path / "same", f"run={trained}", *options) == 0
    result = json.loads((tmp_path / "same" / "retrieval.json").read_text())
    assert result["dataset"]["config_overrides"]["num_train"] == 30
    assert result["dataset"]["max_seconds"] == 2 and figures(tmp_path / "same")["clips"] == 9

    manifest = tmp_path / "root"
    write_esc50(manifest)
    options = ["dataset.family=esc50", f"dataset.config_overrides.root={manifest}", "split=test"]
    assert evaluation(tmp_path / "other", f"run={trained}", *options, "rerank_k=[2]") == 0
    result = json.loads((tmp_path / "other" / "retrieval.json").read_text())
    assert result["dataset"]["name"] == "esc50" and "num_train" not in str(result["dataset"])
    found = figures(tmp_path / "other", "test")
    assert "a2t_precision1" in found["dual"] and "a2t_precision1" in found["intervals"]["dual"]
    assert found["intervals"]["clusters"].keys() == {"a2t", "t2a"}
    assert (tmp_path / "other" / "trec" / "t2a.qrels").read_text().startswith("#0 0 ")


def test_options_of_the_run_that_do_nothing_here_are_no_mistake(
    evaluation: Evaluation, trained_copy: Path, tmp_path: Path, capsys
) -> None:
    """Nobody gave them to the evaluation. Where the data has only been moved, they hold."""
    config = read_yaml(trained_copy / "config.yaml")
    config["dataset"]["family"] = "esc50"
    config["dataset"]["config_overrides"] = {"root": "gone", "test_fold": 2}
    write_yaml(trained_copy / "config.yaml", config)
    root = tmp_path / "root"
    write_esc50(root)
    options = [f"run={trained_copy}", "split=test", "rerank_k=[2]", "trec_depth=0"]
    options.append(f"dataset.config_overrides.root={root}")
    assert evaluation(tmp_path / "moved", *options, "save_embeddings=true") == 0
    with safe_open(tmp_path / "moved" / "embeddings.safetensors", "pt") as file:
        assert {key[0] for key in json.loads(file.metadata()["clips"])} == {"2"}

    table = root / "meta" / "esc50.csv"
    first, *rows = table.read_text().splitlines()
    rows = [f"{row},{'test' if row.startswith('3') else 'train'}" for row in rows]
    table.write_text("\n".join([f"{first},bench_split", *rows]))
    assert evaluation(tmp_path / "other", *options) == 0
    assert figures(tmp_path / "other", "test")["clips"] == 2
    options.append("dataset.config_overrides.test_fold=1")
    assert evaluation(tmp_path / "given", *options) != 0
    assert "`test_fold` is 1, but the column bench_split says" in capsys.readouterr().err


def test_captions_that_the_run_cuts_are_told_without_advice_to_raise_a_limit(
    evaluation: Evaluation, trained_copy: Path, tmp_path: Path
) -> None:
    config = read_yaml(trained_copy / "config.yaml")
    config["tokenizer"]["max_tokens"] = 6
    write_yaml(trained_copy / "config.yaml", config)
    options = [f"run={trained_copy}", "rerank_k=[]", "trec_depth=0"]
    said = "longer than the run's `tokenizer.max_tokens`, 6: .* shorten them, or train"
    with pytest.warns(UserWarning, match=said):
        assert evaluation(tmp_path / "out", *options) == 0


def write_esc50(root: Path) -> None:
    """Five folds of two classes in ESC-50's own layout."""
    import soundfile

    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    generator = torch.Generator().manual_seed(0)
    for fold in range(1, 6):
        for target, category in ((0, "dog"), (1, "rooster")):
            name = f"{fold}-{fold}{target}-A-{target}.wav"
            samples = torch.rand(8_000, generator=generator).numpy() - 0.5
            soundfile.write(root / "audio" / name, samples, 16_000)
            rows.append(f"{name},{fold},{target},{category},False,{fold}{target},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")


def test_without_a_trained_head_nothing_is_re_ranked(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    config = read_yaml(copy / "config.yaml")
    config["criterion"] = {"name": "moco_atc", "config": {}}
    write_yaml(copy / "config.yaml", config)
    assert evaluation(tmp_path / "out", f"run={copy}") == 0
    assert "moco_atc does not train the matching head" in capsys.readouterr().err
    result = figures(tmp_path / "out")
    assert "rerank" not in result and "reranked" not in result
    assert {path.name for path in (tmp_path / "out" / "trec").iterdir()} == {
        f"{way}{suffix}"
        for way in ("a2t", "t2a")
        for suffix in ("_dual.run", ".qrels", "_dup.qrels")
    }


def read_yaml(path: Path) -> dict:
    return YAML(typ="safe").load(path)


def write_yaml(path: Path, content: dict) -> None:
    YAML(typ="safe").dump(content, path)


def test_bf16_runs_and_leaves_the_cosines_in_float32(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    options = ["autocast=bf16", "rerank_k=[3]", "save_embeddings=true"]
    assert evaluation(tmp_path / "bf16", f"run={trained}", *options) == 0
    assert evaluation(tmp_path / "off", f"run={trained}", "save_embeddings=true") == 0
    rough, exact = (embedding(tmp_path / x, "text") for x in ("bf16", "off"))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)


# Each breaks a copy of the run and says what must be complained of.


def no_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def other_config(run: Path) -> None:
    (run / "config.yaml").write_text("split: valid\n")


def half_config(run: Path) -> None:
    (run / "config.yaml").write_text("model: {family: [")


def no_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def unfinished_checkpoint(run: Path) -> None:
    for folder in (run / "checkpoints").glob("step_*"):
        folder.rename(folder.with_name(f"{folder.name}.tmp"))


def model_files(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step_*/model/**/*.pt"))


def half_written(run: Path) -> None:
    for file in model_files(run):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty_file(run: Path) -> None:
    for file in model_files(run):
        file.write_bytes(b"")


def no_file(run: Path) -> None:
    for file in model_files(run):
        file.unlink()


def refused_by_torch(run: Path) -> None:
    for file in model_files(run):
        torch.save({"when": datetime(2024, 5, 1)}, file)


def other_shape(run: Path) -> None:
    config = json.loads((run / "model.json").read_text())
    config["embed_dim"] = 16
    (run / "model.json").write_text(json.dumps(config))


def no_model(run: Path) -> None:
    (run / "model.json").unlink()


def half_model(run: Path) -> None:
    text = (run / "model.json").read_text()
    (run / "model.json").write_text(text[: len(text) // 2])


def other_names(run: Path) -> None:
    for file in model_files(run):
        state = torch.load(file, weights_only=True)
        state["model.extra.weight"] = state.pop("model.text.projection.weight")
        torch.save(state, file)


def not_tensors(run: Path) -> None:
    for file in model_files(run):
        torch.save({"epoch": 3}, file)


def no_tokenizer(run: Path) -> None:
    shutil.rmtree(run / "tokenizer")


@pytest.mark.parametrize(
    ("damage", "config", "message"),
    [
        (no_config, [], "config.yaml is missing; `run` must be the output folder"),
        (other_config, [], "config.yaml has no section `model`"),
        (half_config, [], "config.yaml is not a YAML file"),
        (no_model, [], "model.json is missing; it is in the output folder of every training run"),
        (half_model, [], "model.json cannot be read; it may be half-written"),
        (no_checkpoints, [], "no checkpoint there; looked for `checkpoints/step_N/model`"),
        (unfinished_checkpoint, [], "no checkpoint there"),
        (half_written, [], "sdp_00.pt cannot be read as a checkpoint; it is half-written"),
        (empty_file, [], "sdp_00.pt cannot be read as a checkpoint; it is half-written"),
        (no_file, [], "holds no file `*.pt`"),
        (not_tensors, [], "it must map names to tensors"),
        (other_shape, [], "audio.projection.bias [12] for [16]"),
        (other_names, [], "1 missing: text.projection.weight; 1 unknown: extra.weight"),
        (no_tokenizer, [], "There is no folder"),
        (None, ["checkpoint=step_3"], "no checkpoint 'step_3'; choose best, last or one of step_2"),
        (refused_by_torch, [], "names `datetime.datetime`, which `torch.load(weights_only=True)`"),
        (None, ["split=tset"], "no split 'tset', but 'train', 'valid', 'test'; name"),
        (None, ["rerank_k=[0]"], "`rerank_k` is [0]"),
        (None, ["batch_size=0"], "`batch_size` is 0"),
        (None, ["autocast=fp8"], "autocast"),
        (None, ["splt=test"], "splt"),
        (None, ["dataset.family=audiokaps"], "audiokaps"),
        (None, ["dataset.config_overrides.num_trian=3"], "num_trian"),
    ],
)
def test_a_mistake_ends_in_one_line(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys, damage, config, message: str
) -> None:
    run = trained
    if damage is not None:
        run = tmp_path / "run"
        shutil.copytree(trained, run)
        damage(run)
    assert evaluation(tmp_path / "out", f"run={run}", *config) != 0
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "Traceback" not in written
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert len(errors) == 1 and message in errors[0], errors
    assert not (tmp_path / "out" / "retrieval.json").exists()


def test_a_run_must_be_given(evaluation: Evaluation, tmp_path: Path, capsys) -> None:
    assert evaluation(tmp_path, "split=test") != 0
    assert "`run` is missing" in capsys.readouterr().err


def test_clips_that_cannot_be_read_are_named_before_anything_is_encoded(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    import soundfile

    write_esc50(tmp_path / "root")
    for name in ("4-40-A-0.wav", "4-41-A-1.wav"):  # sound headers, broken samples
        samples = torch.full((8_000,), float("nan")).numpy()
        soundfile.write(tmp_path / "root" / "audio" / name, samples, 16_000, "FLOAT")
    options = ["dataset.family=esc50", f"dataset.config_overrides.root={tmp_path / 'root'}"]
    options.append("split=test")
    assert evaluation(tmp_path / "out", f"run={trained}", *options) == 2
    written = capsys.readouterr().err
    (error,) = [line for line in written.splitlines() if " ERROR: " in line]
    assert "2 of 2 clips cannot be decoded" in error and "Traceback" not in written
    assert "4-40-A-0.wav" in error and "4-41-A-1.wav" in error
    assert not (tmp_path / "out" / "retrieval.json").exists()


def test_the_folder_of_a_run_is_not_overwritten(
    evaluation: Evaluation, trained: Path, capsys
) -> None:
    before = (trained / "config.yaml").read_bytes()
    for more in ([], ["overwrite=true"]):
        assert evaluation(trained, f"run={trained}", *more) == 2
        assert "is the output folder of a training run" in capsys.readouterr().err
    assert (trained / "config.yaml").read_bytes() == before


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but logs."""
    files = [x for x in folder.rglob("*") if x.is_file() and "logs" not in x.parts]
    return {str(x.relative_to(folder)): x.read_bytes() for x in files}


@pytest.mark.slow
def test_two_evaluations_never_mix(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    """Rankings of a re-ranked run stood beside those of one without, and qrels of both splits."""
    out = tmp_path / "out"
    first = [f"run={trained}", "rerank_k=[2]", "save_embeddings=true"]
    assert evaluation(out, *first) == 0
    (out / "mine.txt").touch()
    before = content(out)
    capsys.readouterr()
    # Another split, another checkpoint and the very same: the folder says too little to tell.
    for other in (["split=test"], ["checkpoint=step_2"], []):
        assert evaluation(out, *first, *other) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert "holds another evaluation" in error and "overwrite=true" in error
        assert content(out) == before
    # A mistake in the new one leaves the old one, and what it was made with.
    assert evaluation(out, *first, "split=tset", "overwrite=true") == 2
    for name in ("retrieval.json", "config.yaml"):
        assert (out / name).read_bytes() == before[name]

    second = [f"run={trained}", "rerank_k=[]", "split=test"]
    assert evaluation(out, *second, "overwrite=true") == 0
    assert evaluation(tmp_path / "fresh", *second) == 0
    there, fresh = content(out), content(tmp_path / "fresh")
    assert there.keys() == fresh.keys() | {"mine.txt"}
    assert all(there[name] == fresh[name] for name in fresh if name.startswith("trec/"))
    assert figures(out, "test") == figures(tmp_path / "fresh", "test")


@pytest.mark.parametrize("which", ["step_2", "last", "best"])
def test_a_checkpoint_that_is_said_twice_and_differently_is_refused(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys, which: str
) -> None:
    step = trained / "checkpoints" / "step_4"
    assert evaluation(tmp_path, f"run={step}", f"checkpoint={which}") == 2
    said = capsys.readouterr().err
    assert f"`run` is the checkpoint {step}, but `checkpoint` is '{which}'" in said
    assert not (tmp_path / "retrieval.json").exists()
    assert find_checkpoint(step, "step_4") == (trained, step)


@pytest.mark.parametrize("there", ["checkpoint-6/model.safetensors", "config.json"])
def test_a_run_of_the_other_loop_is_told_what_has_its_figures(
    evaluation: Evaluation, tmp_path: Path, capsys, there: str
) -> None:
    """It may be of a ClapModel, which fairseq2's loop does not train."""
    run = tmp_path / "run"
    (run / there).parent.mkdir(parents=True)
    (run / there).touch()
    assert evaluation(tmp_path / "out", f"run={run}") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "retrieval.json" in said and "not a ClapModel" in said
    assert "`atr-moco analyse SOUNDS CAPTIONS --model BUNDLE`" in said


def test_a_run_may_lie_under_a_name_that_is_a_pattern(
    evaluation: Evaluation, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs [a*b]?"
    shutil.copytree(trained, run)
    config = [f"run={run}", "rerank_k=[]"]
    assert evaluation(tmp_path / "plain", *config) == 0
    assert evaluation(tmp_path / "[out]", *config) == 0
    assert figures(tmp_path / "plain") == figures(tmp_path / "[out]")
    best = json.loads((trained / "retrieval.json").read_text())["checkpoint"]
    assert json.loads((tmp_path / "plain" / "retrieval.json").read_text())["checkpoint"] == best
    assert find_checkpoint(run, "last")[1] == run / "checkpoints" / "step_4"


def test_the_configuration_can_be_dumped_and_read_back(
    evaluation: Evaluation, trained: Path, tmp_path: Path, capsys
) -> None:
    assert evaluation(tmp_path, "rerank_k=[2]", f"run={trained}", more=("--dump-config",)) == 0
    dumped = capsys.readouterr().out
    assert YAML(typ="safe").load(io.StringIO(dumped))["dataset"]["family"] == "toy"
    file = tmp_path / "evaluate.yaml"
    file.write_text(dumped)
    assert evaluation(tmp_path / "out", "split=test", more=("--config-file", str(file))) == 0
    assert list(figures(tmp_path / "out", "test")["rerank"]) == ["2"]


def test_shards_are_put_together(tiny_model, tmp_path: Path) -> None:
    model, other = tiny_model(seed=1), tiny_model(seed=2)
    names = {f"model.{name}": x for name, x in model.state_dict().items()}
    # As FSDP2 saves: every tensor in chunks along dimension 0, some of them empty.
    folder = tmp_path / "checkpoints" / "step_7"
    (folder / "model" / "pp_00" / "tp_00").mkdir(parents=True)
    for rank in range(3):
        shard = {name: (list(x.chunk(3)) + [x[:0]] * 3)[rank].clone() for name, x in names.items()}
        shard["temperature"] = torch.full((1,) if rank == 0 else (0,), 0.2)
        torch.save(shard, folder / "model" / "pp_00" / "tp_00" / f"sdp_{rank:02d}.pt")
    shards = read_state(find_checkpoint(folder)[1])
    load_model(other, shards, folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert temperature_of(shards) == pytest.approx(0.2)
    with pytest.raises(RecipeError, match="no temperature"):
        temperature_of([{}])


class Bar:
    """A reporter and its task that count."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def create_task(self, name: str, total: int) -> Bar:
        return self

    def step(self, value: int) -> None:
        self.steps.append(value)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *ex: object) -> None:
        pass


def test_progress_in_a_log_says_what_is_left(monkeypatch, caplog) -> None:
    clock = iter(range(0, 1_000, 40))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    bar = Bar()
    with caplog.at_level("INFO"), progress(bar, "Encoding clips", 200) as advance:
        for items in (5, 15, 40, 140):
            advance(items)
    assert bar.steps == [5, 15, 40, 140]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "Encoding clips: 20 of 200, 12 min left.",
        "Encoding clips: 60 of 200, 5 min left.",
        "Encoding clips: 200 of 200, 0 s left.",
    ]
    caplog.clear()
    with caplog.at_level("INFO"), progress(bar, "Encoding clips", 200, quiet=True) as advance:
        advance(100)
    assert not caplog.records
