"""A fault that one rank alone sees: both stop, or both leave the step out, and none waits.

The two gloo processes run this file as a script, once for all tests; pytest runs the other half.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo import process_group, run_on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.safety import FiniteGuard, NonFiniteError

pytestmark = pytest.mark.slow  # forty seconds to start processes and wrap models

WORLD = 2
SECOND = 1
"""The rank that sees the fault."""

Result = dict[str, Any]


def sharded(criterion: MocoAtcAtm) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model = criterion.model
    for part in (model.audio, model.text.encoder, model.text, model.head):
        fully_shard(part)
    for part in (criterion.audio_m, criterion.text_m):
        fully_shard(part)
    return fully_shard(criterion, reshard_after_forward=False)


def with_ddp(criterion: MocoAtcAtm) -> nn.Module:
    return DistributedDataParallel(criterion, broadcast_buffers=False)


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def train(make_model: Any, make_batch: Any, wrap: Any, fault: str) -> Result:
    """Five steps: in the third and the fourth the second rank has a fault, before the fifth a
    weight of its own breaks."""
    rank = dist.get_rank()
    criterion = MocoAtcAtm(
        make_model(), MocoAtcAtmConfig(atm_start=0, queue_size=12, momentum=0.5)
    ).train()
    module = wrap(criterion)
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-3)
    criterion.attach(optimizer)
    warned: list[str] = []
    guard = FiniteGuard(
        optimizer, criterion, max_skipped=1, warn=warned.append, last_good=lambda x: f"From {x}."
    )
    planted: list[bool] = [False]
    if fault == "gradient":
        # Finite on this rank's own batch until the gradient comes from the head.
        def plant(logits: Tensor) -> Tensor:
            if planted[0]:
                logits.register_hook(lambda gradient: gradient * math.nan)
            return logits

        match = criterion.model.match
        criterion.model.match = lambda *tokens: plant(match(*tokens))

    result: Result = {"unchanged": [], "finite": [], "average": []}
    for step in range(1, 5):
        batch = make_batch(seed=10 * step + rank)
        planted[0] = step >= 3 and rank == SECOND
        if fault == "clip" and planted[0]:
            batch["audio"]["waveforms"][1, 5] = math.nan
            result["clip"] = str(int(batch["clip_ids"][1]))
        weight = criterion.model.text.projection.weight
        average = criterion.text_m.module.projection.weight
        before, average_before = whole(weight.detach()).clone(), whole(average).clone()
        loss = module(**batch)["loss"]
        guard.watch(loss, batch["clip_ids"])
        loss.backward()
        try:
            optimizer.step()
        except NonFiniteError as ex:
            result["message"] = str(ex)
        optimizer.zero_grad()
        now = whole(weight.detach())
        result["unchanged"].append(torch.equal(now, before))
        expected = average_before if step >= 3 else average_before.lerp(now, 0.5)
        result["average"].append(torch.allclose(whole(average), expected, atol=1e-7))
        state = {name: whole(x) for name, x in criterion.state_dict().items()}
        result["finite"].append(all(bool(x.isfinite().all()) for x in state.values()))
    result["weights"] = float(sum(x.double().abs().sum() for x in state.values()))
    # A weight that the second rank alone has broken, as in its shard.
    if rank == SECOND:
        shard = criterion.model.text.projection.weight.detach()
        getattr(shard, "to_local", lambda: shard)().fill_(math.nan)
    batch = make_batch(seed=99 + rank)
    loss = module(**batch)["loss"]
    guard.watch(loss, batch["clip_ids"])
    loss.backward()
    try:
        optimizer.step()
    except NonFiniteError as ex:
        result["weight"] = str(ex)
    result["warnings"] = warned
    result["steps"] = int(criterion.num_steps)
    return result


def forget(make_model: Any, make_batch: Any, wrap: Any) -> int:
    """How often a loop is warned that neither attaches nor calls."""
    criterion = MocoAtcAtm(make_model(), MocoAtcAtmConfig(atm_start=0, queue_size=12)).train()
    module = wrap(criterion)
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-3, foreach=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(6):
            module(**make_batch(seed=10 * step + dist.get_rank()))["loss"].backward()
            if step >= 2:  # two batches are accumulated first
                optimizer.step()
                optimizer.zero_grad()
            assert step > 2 or not any("attach" in str(x.message) for x in caught)
    return sum("attach" in str(x.message) for x in caught)


def main(own_rank: int, folder: Path) -> None:
    from conftest import make_tiny_batch, make_tiny_model

    with process_group(own_rank, WORLD, folder):
        results = {
            f"{name} {fault}": train(make_tiny_model, make_tiny_batch, wrap, fault)
            for name, wrap in (("ddp", with_ddp), ("fsdp", sharded))
            for fault in ("clip", "gradient")
        }
        for name, wrap in (("ddp", with_ddp), ("fsdp", sharded)):
            results[f"{name} forgets"] = forget(make_tiny_model, make_tiny_batch, wrap)
        (folder / f"{own_rank}.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two_ranks")
    run_on_ranks(__file__, WORLD, folder)
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(WORLD)]


@pytest.mark.parametrize("fault", ["clip", "gradient"])
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_both_ranks_decide_alike(ranks: list[dict[str, Result]], name: str, fault: str) -> None:
    first, second = (results[f"{name} {fault}"] for results in ranks)
    # The step left out and the one that stops the run change no weight.
    assert first["unchanged"] == second["unchanged"] == [False, False, True, True]
    # The averages follow the two steps that were made.
    assert first["average"] == second["average"] == [True] * 4
    assert first["steps"] == second["steps"] == 2
    assert first["finite"] == second["finite"] == [True] * 4
    assert first["weights"] == second["weights"]
    assert first["weight"] == second["weight"]
    assert "before the step was made: model.text.projection.weight." in first["weight"]
    assert first["weight"].endswith("From False.")
    (warning,) = first["warnings"]
    assert second["warnings"] == []
    assert first["message"] == second["message"]
    assert first["message"].endswith("leave them out.") == (fault == "clip")
    if fault == "clip":
        # The first rank's loss has the broken embedding among its columns.
        assert "The loss of step 3 is nan, in a batch" in warning
        assert "The loss of step 4 is nan, in a batch" in first["message"]
        assert f" audio embeddings of {second['clip']}." in first["message"]
        assert "text embeddings" not in first["message"]
        assert "From True." in first["message"]
    else:
        assert "The loss of step 4 is finite, but the gradient of model." in first["message"]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_loop_that_forgets_the_averages_is_warned(ranks: list[dict], name: str) -> None:
    assert [results[f"{name} forgets"] for results in ranks] == [1, 1]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
