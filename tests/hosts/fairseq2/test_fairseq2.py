"""The fairseq2 host through its command line: real trainer, real checkpoints, tiny model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.metrics import Mean, MetricBag
from fairseq2.recipe.error import RecipeError

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, read_queries
from atr_moco_plugin.hosts.fairseq2.training.model import convert_state_dict
from atr_moco_plugin.hosts.fairseq2.training.unit import RetrievalTrainUnit
from atr_moco_plugin.model.architectures import toy
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import FiniteGuard

Run = Callable[..., int]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_leaves_what_is_promised(run: Run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "report=true") == 0

    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert result["criterion"] == "moco_atc_atm" and result["seed"] == 2
    assert (tmp_path / result["checkpoint"] / "model").is_dir()
    for split in ("valid", "test"):
        figures = result["splits"][split]
        assert (figures["clips"], figures["captions"], figures["rerank_k"]) == (6, 30, 3)
        for kind in ("dual", "reranked", "reranked_blip", "reranked_albef", "chance"):
            assert 0 <= figures[kind]["r_sum"] <= 600
            assert 0 <= figures[kind]["t2a_map10"] <= 100
        for kind in ("dual", "reranked", "reranked_blip", "reranked_albef"):
            low, high = figures["intervals"][kind]["r_sum"]
            assert low <= figures[kind]["r_sum"] <= high
    assert read_queries(tmp_path / QUERIES_FILE).keys() == {"valid", "test"}

    rank = lines(tmp_path / "rank.jsonl")
    assert [record["step"] for record in rank] == [1, 2, 3, 4]
    assert [record["sources"]["audio"]["rows"] for record in rank] == [8, 16, 24, 32]
    for record in rank:
        assert set(record["sources"]) == {"audio", "text"}
        for source in record["sources"].values():
            assert source["raw"]["rankme"] > 0 and source["centered"]["random"]["rankme"] > 0

    train = lines(tmp_path / "metrics" / "train.jsonl")
    assert {"ATC Loss", "ATM Loss", "Temperature", "Queue Fill"} <= set(train[-1])
    valid = lines(tmp_path / "metrics" / "valid.jsonl")
    assert [record["Step"] for record in valid] == [2, 4] and "R-sum" in valid[0]
    assert "audio_centered_rankme_random" in lines(tmp_path / "metrics" / "rank.jsonl")[0]
    assert list(tmp_path.glob("tb/**/events.*"))
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<audio") >= 4 and "data:audio/" in page and "http://" not in page
    assert "valid" in page and (tmp_path / "report" / "examples.json").is_file()
    assert "queue_size: 512" in (tmp_path / "config.yaml").read_text()

    log = (tmp_path / "logs" / "rank_0.log").read_text()
    assert "Environment Variables" not in log and "Optimizer parameter group" in log

    captured = capsys.readouterr()
    assert max(map(len, captured.err.splitlines())) < 1_200
    title, header, rule, *rows, note, last = [line for line in captured.out.splitlines() if line]
    assert title == "Retrieval on toy test: 6 clips, 30 captions" and header.split()[0] == "R@1"
    systems = ("dual encoder", "re-ranked", "chance")
    ways = ("audio to text", "text to audio")
    names = [row.strip().split("  ")[0] for row in rows]
    intervals = [i for i, name in enumerate(names) if name == "95 %"]
    assert intervals == [1, 3, 6, 8] and "bootstrap over 6 clips" in note
    assert [name for name in names if name != "95 %"] == [
        f"{way}, {system}" for way in ways for system in systems
    ]
    assert last == f"Report: {tmp_path / 'report' / 'index.html'}"


def checkpoint(out: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(
    run: Run, trained: Path, stopped: Path
) -> None:
    whole, resumed = trained, stopped
    assert run(resumed) == 0

    expected, found = checkpoint(whole, 4), checkpoint(resumed, 4)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert int(found["audio_queue.position"][0]) == 32
    assert [r["step"] for r in lines(resumed / "rank.jsonl")] == [1, 2, 3, 4]
    first, second = (json.loads((out / "retrieval.json").read_text()) for out in (whole, resumed))
    assert first == second


@pytest.mark.slow
def test_a_queue_that_grows_stays_within_an_epoch_and_resumes(run: Run, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = (
        "criterion.config.queue_size=auto", "criterion.config.queue_min=4",
        "criterion.config.queue_warmup_steps=0",
    )  # fmt: skip
    assert run(whole, *options) == 0
    sizes = [record["Queue Size"] for record in lines(whole / "metrics" / "train.jsonl")]
    assert sizes == sorted(sizes) and 4 <= sizes[0] < sizes[-1] <= 30, sizes
    assert_goes_on_alike(run, whole, resumed, options)


def assert_goes_on_alike(run: Run, whole: Path, resumed: Path, options: Sequence[str]) -> None:
    """A copy of a whole run without its last checkpoint ends where that did."""
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    (resumed / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(resumed, *options) == 0
    expected, found = checkpoint(whole, 4), checkpoint(resumed, 4)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("columns=online", "momentum_schedule=cosine", "momentum_per=pair", "momentum=0.99"),
        ("columns=online", "keys=online", "alpha=0", "momentum=0.995", "queue_warmup_steps=auto"),
    ],
)
def test_other_columns_keys_and_schedules_train_and_resume(
    run: Run, tmp_path: Path, options: Sequence[str]
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = [f"criterion.config.{option}" for option in options]
    assert run(whole, *options) == 0
    measured = [record["Momentum"] for record in lines(whole / "metrics" / "train.jsonl")]
    if "criterion.config.keys=online" in options:
        assert measured == [0.0] * 4
    else:
        assert 0.99**8 == pytest.approx(measured[0]) and measured == sorted(measured)
    assert_goes_on_alike(run, whole, resumed, options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moco_atc", "atc"])
def test_the_criterion_shorthand(run: Run, tmp_path: Path, name: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"criterion: {name}\n")
    assert run(tmp_path / "out", more=("--config-file", str(file))) == 0
    result = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert result["criterion"] == name
    # Neither trains the matching head, so there is nothing to re-rank with.
    assert "reranked" not in result["splits"]["test"]
    assert (tmp_path / "out" / "rank.jsonl").exists() == (name == "moco_atc")


def test_another_configuration_in_the_same_folder_is_refused(
    run: Run, trained_copy: Path, capsys
) -> None:
    capsys.readouterr()
    assert run(trained_copy, "common.seed=3") != 0
    written = capsys.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1
    assert "seed was 2 and is 3" in errors[0] and "needs another folder" in errors[0]


@pytest.mark.slow
def test_a_queue_longer_than_an_epoch_is_warned_of(run: Run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "regime.num_steps=2") == 0
    assert "The queue has 512 rows, but an epoch has 30 pairs" in capsys.readouterr().err


def test_checkpoints_load_as_a_plain_model(trained: Path) -> None:
    state = convert_state_dict(checkpoint(trained, 4), toy())
    assert all(name.split(".")[0] in ("audio", "text", "head") for name in state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (["criterion=moco_atc_amt"], "Did you mean moco_atc_atm?"),
        (["criterion.config.queue_sise=3"], "Did you mean `queue_size`?"),
        (["criterion.config.momentum=1.5"], "`momentum` is 1.5, expected 0 to 1"),
        (["criterion.config.queue_size=many"], "`criterion.config.queue_size` is 'many'"),
        (["hooks.rnk.every=2"], "Did you mean rank?"),
        (["hooks.rank.evry=2"], "`hooks.rank`"),
        (["dataset.batch_sise=3"], "batch_sise"),
        (["dataset.config_overrides.num_trian=3"], "num_trian"),
        (["model.config_overrides.embed_dimm=3"], "of `RetrievalModelConfig`"),
        (["regime.num_steps=many"], "`num_steps` field cannot be structured"),
        (["dataset.batch_size=1"], "`batch_size` is 1, expected 2 or more"),
        (["dataset.train_split=trian"], "trian"),
        (["model.config_overrides.audio.name=beast"], "Did you mean beats?"),
        (["model.config_overrides.audio.config.encoder_layer=3"], "encoder_layer"),
        (["model.config_overrides.text.config.vocab_size=40"], "vocab_size"),
        (["tokenizer.max_tokens=65"], "`tokenizer.max_tokens` is 65, but the text encoder has"),
        (["tokenizer.name=/nowhere/tokenizer"], "/nowhere/tokenizer"),
        (["model.arch=huge"], "huge"),
        (["lr_scheduler.config.num_warmup_steps=4"], "leaves the schedule no step"),
        (["init=pretrained"], "`model.config_overrides.audio.config.checkpoint`"),
        (["init=nowhere/run"], "there is none there"),
        (["init=$NOT_SET/run"], "the environment variable $NOT_SET is not set"),
        (["dataset.cache_dir=$NOT_SET/cache"], "the environment variable $NOT_SET is not set"),
        (
            ["dataset.family=manifest", "dataset.config_overrides={root: ~no_such_user/m.csv}"],
            "there is no home folder of '~no_such_user'",
        ),
        (["optimizer.config.layer_decay=2"], "`layer_decay` is 2"),
        (["optimizer.config.betas=[0.9, 1.0]"], "`betas` is [0.9, 1.0], expected two numbers"),
        (["optimizer.config.text_rl=2"], "text_rl"),
        (["dataset.family=audiokaps"], "audiokaps"),
    ],
)
def test_a_mistake_ends_in_one_line(
    run: Run, tmp_path: Path, capsys, config: list[str], message: str
) -> None:
    assert run(tmp_path, *config) != 0
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "Traceback" not in written
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert len(errors) == 1 and message in errors[0], errors


class Recorder:
    """Keeps what is recorded, as a metric recorder would write it."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, float], int]] = []

    def record_metric_values(self, category: str, values: dict[str, float], step: int) -> None:
        self.records.append((category, values, step))


def make_unit(criterion: MocoAtcAtm, recorder: Recorder | None = None, hooks=None):
    """A unit around a criterion, and the optimizer whose steps it guards."""
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    guard = FiniteGuard(optimizer, criterion, error=RecipeError)
    recorder = recorder or Recorder()
    unit = RetrievalTrainUnit(criterion, criterion, hooks or {}, recorder, guard, warn_after=10)
    return unit, optimizer


@pytest.mark.parametrize(("loss", "warnings"), [(0.6365, 1), (0.632, 1), (0.6, 0)])
def test_a_matching_loss_that_stays_at_its_prior_is_warned_of_once(
    loss: float, warnings: int, tiny_model, caplog
) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=4))
    unit, _ = make_unit(criterion)
    with caplog.at_level("WARNING"):
        for step in (5, 10, 15):
            unit.set_step_nr(step)
            unit.process_metric_values({"loss_atm": torch.tensor(loss)})
            if step == 5:
                assert not caplog.records
    assert len(caplog.records) == warnings
    assert all("1:2 labels" in record.getMessage() for record in caplog.records)


def test_means_of_0_and_of_nothing_are_no_warning(tiny_model, caplog) -> None:
    """torcheval said "No calls to update() have been made", twice at each report."""
    unit, _ = make_unit(MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(queue_size=4)))
    bag = MetricBag(torch.device("cpu"))
    unit.prepare_metric_bag(bag)
    bag.begin_updates()
    bag.get("alpha", Mean).update(torch.tensor(0.0), weight=2.0)
    bag.get("temperature", Mean).update(torch.tensor(0.5), weight=torch.tensor(2.0))
    bag.commit_updates()
    found = {name: float(bag.get(name, Mean).compute()) for name in ("alpha", "loss_atm")}
    assert found == {"alpha": 0.0, "loss_atm": 0.0} and not caplog.records
    assert float(bag.get("temperature", Mean).compute()) == 0.5


def test_hooks_are_recorded_under_their_name(tiny_model, tiny_batch) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
    criterion(**tiny_batch())
    recorder = Recorder()
    hooks = {"rank": RankLogger(criterion.queues, every=2)}
    unit, _ = make_unit(criterion, recorder, hooks)
    for step in (1, 2, 3):
        unit.set_step_nr(step)
        unit.process_metric_values({})
    ((category, values, step),) = recorder.records
    assert (category, step) == ("rank", 2) and values["audio_rows"] == 4


def test_the_loss_of_a_step_is_the_criterions(tiny_model, tiny_batch) -> None:
    config = MocoAtcAtmConfig(atm_start=0, queue_size=6)
    bare, hosted = (MocoAtcAtm(tiny_model(), config).train() for _ in range(2))
    unit, optimizer = make_unit(hosted)
    bag = MetricBag(device=torch.device("cpu"))
    unit.prepare_metric_bag(bag)
    for step in (1, 2, 3):  # the queue wraps
        raw = tiny_batch(seed=step)
        batch = PairBatch(
            **raw["audio"],
            input_ids=raw["text"]["input_ids"],
            text_mask=raw["text"]["mask"],
            clip_ids=raw["clip_ids"],
            caption_ids=raw["caption_ids"],
        )
        unit.set_step_nr(step)
        loss, _ = unit.process_batch(batch, bag)
        torch.testing.assert_close(loss, bare(**raw)["loss"], atol=1e-5, rtol=0)
        optimizer.step()
        bare.on_optimizer_step()


def test_a_loss_that_is_not_finite_stops_the_run(tiny_model, tiny_batch) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
    unit, optimizer = make_unit(criterion)
    bag = MetricBag(device=torch.device("cpu"))
    unit.prepare_metric_bag(bag)
    unit.set_step_nr(7)
    with torch.no_grad():
        criterion.model.text.projection.weight.fill_(float("nan"))
    raw = tiny_batch()
    batch = PairBatch(
        **raw["audio"],
        input_ids=raw["text"]["input_ids"],
        text_mask=raw["text"]["mask"],
        clip_ids=raw["clip_ids"],
        caption_ids=raw["caption_ids"],
    )
    loss, _ = unit.process_batch(batch, bag)
    loss.backward()
    with pytest.raises(RecipeError, match="loss of step 7 is nan"):
        optimizer.step()


def test_momentum_moves_in_the_optimizers_step_alone(tiny_model) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=4))
    unit, optimizer = make_unit(criterion)
    counts = []
    for step in (1, 2, 2, 3):  # an fp16 overflow repeats a number
        unit.set_step_nr(step)
        counts.append(int(criterion.num_steps))
        if counts != [0, 1]:
            optimizer.step()
    assert counts == [0, 1, 1, 2]


def test_a_checkpoint_holds_the_averages_of_its_own_step(run: Run, tmp_path: Path) -> None:
    # Without inertia the average of a step is the weights of that step.
    options = ("criterion.config.momentum=0.0", "trainer.grad_accumulation.num_batches=2")
    assert run(tmp_path, *options) == 0
    for step in (2, 4):
        state = checkpoint(tmp_path, step)
        assert int(state["num_steps"]) == step
        copies = [name for name in state if name.startswith(("audio_m.", "text_m."))]
        assert len(copies) > 40
        for name in copies:
            online = "model." + name.replace("_m.module.", ".")
            assert torch.equal(state[name], state[online]), name


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(run: Run, stopped: Path) -> None:
    (file,) = (stopped / "checkpoints" / "step_2" / "model").rglob("*.pt")
    state = torch.load(file, weights_only=True)
    # It held the averages and the number of the step before.
    state["num_steps"] -= 1
    torch.save(state, file)
    assert run(stopped) == 0
    assert int(checkpoint(stopped, 4)["num_steps"]) == 3
