"""Two processes begin the matching loss in one step, and leave the head alone until then, under DDP
and FSDP2. The two gloo processes run this file as a script, once for all tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
import training
from gloo import process_group, run_on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.distributed import process_index

pytestmark = pytest.mark.slow  # half a minute to start processes and wrap models

STEPS, BEGINS = 14, 10
WRAPPERS = ("ddp", "fsdp")


def build(seed: int) -> MocoAtcAtm:
    config = MocoAtcAtmConfig(
        queue_size=21, momentum=0.5, atm_start="auto", atm_every=2, negatives="all_ranks"
    )
    criterion = MocoAtcAtm(training.make_model(seed), config).train()
    # Tiny random models find nothing: as if they had for a while. Process 0 alone decides.
    found = torch.tensor([1_000.0, 7_000.0, 1_000.0]) * (process_index() == 0)
    criterion.matching_start.sums.copy_(found)
    return criterion


def wrap(criterion: MocoAtcAtm, wrapper: str) -> Any:
    if wrapper == "ddp":
        return DistributedDataParallel(
            criterion, broadcast_buffers=False, find_unused_parameters=True
        )
    from torch.distributed.fsdp import fully_shard

    model = criterion.model
    for part in (model.audio, model.text.encoder, model.text, model.head):
        fully_shard(part)
    for part in (criterion.audio_m, criterion.text_m):
        fully_shard(part)
    return fully_shard(criterion, reshard_after_forward=False)


def train(criterion: MocoAtcAtm, module: Any, ranks: int) -> dict[str, Any]:
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.02, momentum=0.9, weight_decay=0.1)
    criterion.attach(optimizer)
    losses, matched, moved, states = [], [], [], []
    for step in range(STEPS):
        before = [local(p) for p in criterion.model.head.parameters()]
        batch = training.part_of(training.global_batch(step, 8), process_index(), ranks)
        found = module(**batch)
        found["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        after = list(criterion.model.head.parameters())
        losses.append(found["loss"].detach())
        matched.append(not bool(found["loss_atm"].isnan()))
        moved.append(any(not torch.equal(x, local(p)) for x, p in zip(before, after, strict=True)))
        states.append(any(p in optimizer.state for p in after))
    return {
        "losses": torch.stack(losses), "matched": matched, "moved": moved, "states": states,
        "since": criterion.matching_since,
    }  # fmt: skip


def local(x: nn.Parameter) -> Tensor:
    return getattr(x, "to_local", x.detach().clone)().detach().clone()


def main(rank: int, folder: Path) -> None:
    with process_group(rank, 2, folder):
        torch.manual_seed(0)
        found = {}
        for wrapper in WRAPPERS:
            criterion = build(0)
            found[wrapper] = train(criterion, wrap(criterion, wrapper), 2)
        torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("matching")
    run_on_ranks(__file__, 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_both_begin_in_one_step_and_leave_the_head_alone_until_then(ranks, wrapper: str) -> None:
    due = [step >= BEGINS and step % 2 == 0 for step in range(STEPS)]
    for rank in ranks:
        found = rank[wrapper]
        assert found["since"] == BEGINS
        assert found["matched"] == due
        assert found["moved"] == due  # no decay either, also in the steps that are left out later
        assert found["states"] == [step >= BEGINS for step in range(STEPS)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_they_train_as_one(ranks, wrapper: str) -> None:
    criterion = build(0)
    expected = train(criterion, criterion, 1)
    losses = torch.stack([rank[wrapper]["losses"] for rank in ranks]).mean(dim=0)
    assert_close(losses, expected["losses"], atol=1e-5, rtol=1e-5)
    assert expected["since"] == BEGINS


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
