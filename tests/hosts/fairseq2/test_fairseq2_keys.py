"""Keys of fairseq2's own sections: each does what it says or is refused before data is opened."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.recipe.error import RecipeError

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.encoders.bert.layers import BertLayer
from atr_moco_plugin.evaluation.split_figures import figure_names
from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation
from atr_moco_plugin.hosts.fairseq2.training.model import apply_fsdp

Run = Callable[..., int]


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "Traceback" not in written, written[-3000:]
    return [line for line in written.splitlines() if " ERROR: " in line]


TENSOR_PARALLEL = ("gang.tensor_parallel_size=2", "`gang.tensor_parallel_size` is 2, but must be 1")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        TENSOR_PARALLEL,
        ("trainer.fsdp.version=v1", "`trainer.fsdp.version` is v1, but must be v2"),
        ("trainer.fsdp.granularity=model", "`trainer.fsdp.granularity` is model, but must be"),
        (
            ["trainer.data_parallelism=fsdp", "trainer.mixed_precision.mode=static"],
            "`trainer.mixed_precision.mode` is static, but must be auto or off under fsdp",
        ),
        ("regime.score_metric=rsum_dup", "such as r_sum_dup"),
        ("regime.score_metric=loss_atc", "`regime.score_metric` is loss_atc, which no validation"),
        ("regime.score_metric=reranked_r_sum", "set `evaluation.rerank_while_training=true`"),
        ("common.torch.default_sdpa=naive", "`common.torch.default_sdpa` is naive, but"),
    ],
)
def test_what_the_recipes_cannot_do_is_refused(
    run: Run, tmp_path: Path, capsys, option: str | list[str], message: str
) -> None:
    assert run(tmp_path, *([option] if isinstance(option, str) else option)) == 2
    (error,) = errors(capsys)
    assert message in error
    assert not list(tmp_path.glob("checkpoints/step_*"))


@pytest.mark.parametrize(("option", "message"), [TENSOR_PARALLEL])
def test_an_evaluation_refuses_it_too(
    monkeypatch, tmp_path: Path, capsys, option: str, message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", str(tmp_path), "--no-rich", "--config", option])
    with pytest.raises(SystemExit) as caught:
        run_evaluation()
    assert caught.value.code == 2
    (error,) = errors(capsys)
    assert message in error


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["r_sum_dup", "t2a_map10", "a2t_medr"])
def test_the_best_checkpoint_has_the_best_score(run: Run, tmp_path: Path, metric: str) -> None:
    assert run(tmp_path, f"regime.score_metric={metric}", "evaluation.test_split=null") == 0
    result = json.loads((tmp_path / "retrieval.json").read_text())
    sign = -1 if metric.endswith("medr") else 1
    assert result["valid_score"] == pytest.approx(sign * result["splits"]["valid"]["dual"][metric])
    scores = [float(x.read_text()) for x in tmp_path.glob("checkpoints/scores/*.txt")]
    assert len(scores) == 2 and result["valid_score"] == pytest.approx(max(scores))


def test_what_a_validation_reports() -> None:
    by_clip = set(figure_names(one_clip_each=True, reranks=False))
    by_label = set(figure_names(one_clip_each=False, reranks=False))
    assert {"r_sum", "r_sum_dup", "audio_rankme"} < by_clip
    assert "a2t_precision1" in by_label - by_clip and "r_sum_dup" not in by_label
    assert "reranked_r_sum" in set(figure_names(one_clip_each=True, reranks=True)) - by_clip


def wrapped(granularity: str, tiny_model) -> tuple[MocoAtcAtm, list[tuple[nn.Module, bool | None]]]:
    """A criterion, and what was made a unit of it, with the wish to keep it whole."""
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=4))
    units: list[tuple[nn.Module, bool | None]] = []

    def wrapper(module: nn.Module, reshard_after_forward: bool | None = None) -> nn.Module:
        units.append((module, reshard_after_forward))
        return module

    assert apply_fsdp(criterion, granularity, wrapper) is criterion
    return criterion, units


def test_the_units_of_fsdp_follow_the_granularity(tiny_model) -> None:
    criterion, units = wrapped("stack", tiny_model)
    modules = [module for module, _ in units]
    model = criterion.model
    towers = [model.audio, model.text.encoder, model.text, model.head, criterion.audio_m]
    assert modules == [*towers, criterion.text_m, criterion]
    # What `trainer.fsdp.reshard_after_forward` says holds for all but the root, which the backward
    # pass needs first.
    assert [keep for _, keep in units] == [None] * 6 + [False]

    criterion, units = wrapped("layer", tiny_model)
    layers = [module for module, _ in units if isinstance(module, BertLayer)]
    assert layers == [x for x in criterion.modules() if isinstance(x, BertLayer)] and layers
    assert all(keep is None for _, keep in units[:-1]) and len(units) > 7
    # Inner units come first, as `fully_shard` asks.
    order = [module for module, _ in units]
    for at, module in enumerate(order):
        assert not any(x in order[at + 1 :] for x in module.modules())


def test_a_granularity_that_there_is_not_is_refused(tiny_model) -> None:
    with pytest.raises(RecipeError, match="granularity"):
        wrapped("model", tiny_model)
