"""Two processes with half batches do what one process does with the whole batch.

The two gloo processes run this file as a script, once for all tests; pytest runs the other half.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
)
from atr_moco_plugin.distributed import (
    gather,
    of_first_rank,
    pad_to_longest,
    rank,
    sizes,
    world_size,
)

WORLD = 2
TIMEOUT = 60
STEPS = 5
BATCH = 6
QUEUE = 10  # neither a multiple of the batch nor larger than two of them: it wraps in step 2
# Full in step 2 of 12 rows, and with the double of its rows in step 3.
AUTO = MocoAtcConfig(momentum=0.5, queue_size="auto", queue_min=8, queue_max=20)
LAYERED = {"momentum": 0.5, "alpha_warmup_steps": 2, "queue_size": QUEUE}

CASES: dict[str, tuple[Callable[[Any], Atc], str]] = {
    "atc": (lambda model: Atc(model, AtcConfig(positives="clip_or_caption")), "blip"),
    "moco_atc": (lambda model: MocoAtc(model, MocoAtcConfig(**LAYERED)), "blip"),
    "moco_atc_atm": (
        lambda model: MocoAtcAtm(model, MocoAtcAtmConfig(**LAYERED, negatives="all_ranks")),
        "blip",
    ),
    # Its head reads the gathered text states, so their gradient crosses the ranks too.
    "moco_atc_atm_albef": (
        lambda model: MocoAtcAtm(model, MocoAtcAtmConfig(**LAYERED, negatives="all_ranks")),
        "albef",
    ),
}


def global_batch(make_batch: Callable[..., Any], step: int) -> dict[str, Any]:
    """A batch in which two items of different halves share a clip, and two others a caption."""
    batch = make_batch(b=BATCH, seed=step)
    batch["clip_ids"][3] = batch["clip_ids"][0]
    batch["caption_ids"][5] = batch["caption_ids"][1]
    return batch


def part_of(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Some rows, cut to the longest clip and caption among them as a data loader would."""
    lengths, mask = batch["audio"]["lengths"][rows], batch["text"]["mask"][rows]
    samples, tokens = int(lengths.max()), int(mask.sum(dim=1).max())
    return {
        "audio": {"waveforms": batch["audio"]["waveforms"][rows, :samples], "lengths": lengths},
        "text": {
            "input_ids": batch["text"]["input_ids"][rows, :tokens],
            "mask": mask[:, :tokens],
        },
        "clip_ids": batch["clip_ids"][rows],
        "caption_ids": batch["caption_ids"][rows],
    }


def train(criterion: Atc, batches: list[dict[str, Any]], module: Any = None) -> dict[str, Any]:
    """Train, and return what must agree. Plain SGD: Adam would turn the rounding of a gradient
    that is zero in exact arithmetic, such as that of a key bias, into a step of full size."""
    module = module or criterion
    weights = [p for p in criterion.model.parameters() if p.requires_grad]
    # The gradient of the temperature is large enough to throw it to an end of its range.
    groups = [{"params": weights}, {"params": [criterion.temperature], "lr": 1e-4}]
    optimizer = SGD(groups, lr=0.02)
    losses, gradients = [], {}
    for batch in batches:
        optimizer.zero_grad()
        out = module(**batch)
        out["loss"].backward()
        if not gradients:
            named = criterion.named_parameters()
            gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
        optimizer.step()
        criterion.on_optimizer_step()
        losses.append(out["loss"].detach())
    return {"losses": torch.stack(losses), "gradients": gradients, "state": criterion.state_dict()}


def run_training(make_model: Callable[..., Any], make_batch: Callable[..., Any]) -> dict[str, Any]:
    """Every case on this rank's half of each batch."""
    half = BATCH // WORLD
    own = slice(rank() * half, (rank() + 1) * half)
    batches = [part_of(global_batch(make_batch, step), own) for step in range(STEPS)]
    results: dict[str, Any] = {
        "samples": torch.tensor([x["audio"]["waveforms"].size(1) for x in batches]),
        "tokens": torch.tensor([x["text"]["mask"].size(1) for x in batches]),
    }
    own_batch = MocoAtcAtmConfig(**LAYERED, negatives="batch")
    cases = CASES | {"own_batch": (lambda model: MocoAtcAtm(model, own_batch), "blip")}
    for name, (build, fusion) in cases.items():
        # Ranks start from different weights; DDP must carry those of rank 0 over.
        criterion = build(make_model(seed=rank(), fusion=fusion)).train()
        ddp = DistributedDataParallel(
            criterion,
            broadcast_buffers=False,
            find_unused_parameters="atm" not in name and name != "own_batch",
        )
        results[name] = train(criterion, batches, ddp)

    # The matching head takes no part; the batches are those of the cases.
    criterion = MocoAtc(make_model(seed=0), AUTO).train()
    results["auto"] = train(criterion, batches)["state"]

    # Four items on the first rank, two on the second.
    uneven = slice(0, 4) if rank() == 0 else slice(4, BATCH)
    criterion = CASES["moco_atc"][0](make_model(seed=0)).train()
    out = criterion(**part_of(global_batch(make_batch, 0), uneven))
    results["uneven"] = {"loss": out["loss"].detach(), "state": criterion.state_dict()}
    return results


def uneven_rows(of_rank: int) -> Tensor:
    """Three rows on the first rank, two on the second."""
    return torch.randn(3 - of_rank, 4, generator=torch.Generator().manual_seed(of_rank))


def weights(of_rank: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(10 + of_rank))


def run_gathers() -> dict[str, Any]:
    x = uneven_rows(rank()).requires_grad_()
    with_gradient = gather(x, grad=True)
    (with_gradient * weights(rank())).sum().backward()
    without = gather(x)
    return {
        "world": torch.tensor([world_size(), rank()]),
        "sizes": torch.tensor(sizes(len(x), x.device)),
        "rows": with_gradient.detach(),
        "rows_without_gradient": without,
        "has_gradient": torch.tensor([with_gradient.requires_grad, without.requires_grad]),
        "gradient": x.grad,
        "int64": gather(torch.full((3 - rank(),), 2**62 + rank())),
        "bool": gather(torch.tensor([[True, False], [False, True]])[: 2 - rank()]),
        "longest": pad_to_longest(torch.ones(1, 2 + 3 * rank(), 4), dim=1),
        "decision": torch.tensor([of_first_rank(rank() == i, x.device) for i in range(WORLD)]),
        "empty": gather(torch.ones(2 * rank(), 3)),
    }


def main(own_rank: int, folder: Path) -> None:
    from conftest import make_tiny_batch, make_tiny_model

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=own_rank,
        world_size=WORLD,
        timeout=timedelta(seconds=TIMEOUT),
    )
    results = {"gathers": run_gathers(), **run_training(make_tiny_model, make_tiny_batch)}
    torch.save(results, folder / f"{own_rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("distributed")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(i), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(WORLD)
    ]
    try:
        errors = [process.communicate(timeout=2 * TIMEOUT)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(errors)
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(WORLD)]


def test_gathers_put_uneven_batches_in_rank_order(ranks) -> None:
    expected = torch.cat([uneven_rows(0), uneven_rows(1)])
    for i, found in enumerate(x["gathers"] for x in ranks):
        assert found["world"].tolist() == [2, i]
        assert found["sizes"].tolist() == [3, 2]
        assert torch.equal(found["rows"], expected)
        assert torch.equal(found["rows_without_gradient"], expected)
        assert found["has_gradient"].tolist() == [True, False]
        assert found["int64"].tolist() == [2**62] * 3 + [2**62 + 1] * 2
        assert found["bool"].tolist() == [[True, False], [False, True], [True, False]]
        assert found["empty"].tolist() == [[1.0] * 3] * 2


def test_the_first_rank_decides(ranks) -> None:
    for found in ranks:
        assert found["gathers"]["decision"].tolist() == [True, False]
    assert of_first_rank(True, torch.device("cpu")) and not of_first_rank(False, torch.device("cpu"))


def test_gradient_of_a_gather_is_summed_over_the_ranks_that_used_the_row(ranks) -> None:
    both = weights(0) + weights(1)
    torch.testing.assert_close(ranks[0]["gathers"]["gradient"], both[:3])
    torch.testing.assert_close(ranks[1]["gathers"]["gradient"], both[3:])


def test_padding_reaches_the_longest_of_all_ranks(ranks) -> None:
    for i, found in enumerate(x["gathers"]["longest"] for x in ranks):
        assert found.shape == (1, 5, 4)
        assert found.sum() == (2 + 3 * i) * 4 and found[:, 2 + 3 * i :].abs().sum() == 0


def test_a_single_process_gathers_nothing() -> None:
    x = torch.ones(3, 2, 4, requires_grad=True)
    assert gather(x) is x and gather(x, grad=True) is x and pad_to_longest(x, dim=1) is x
    assert (world_size(), rank(), sizes(3, x.device)) == (1, 0, [3])


@pytest.fixture(params=CASES)
def case(request, ranks, tiny_model, tiny_batch) -> tuple[Any, Any, Any, Any]:
    """Initial state, what one process found, and what each of two found."""
    build, fusion = CASES[request.param]
    criterion = build(tiny_model(seed=0, fusion=fusion)).train()
    initial = {name: value.clone() for name, value in criterion.state_dict().items()}
    # Padded alike for all items, unlike the halves, which are cut to their longest.
    single = train(criterion, [global_batch(tiny_batch, step) for step in range(STEPS)])
    return initial, single, *(x[request.param] for x in ranks)


def test_two_processes_train_as_one(case) -> None:
    initial, single, first, second = case
    losses = (first["losses"] + second["losses"]) / 2
    torch.testing.assert_close(losses, single["losses"], atol=1e-5, rtol=1e-5)
    # The halves hold other queries, so a mean that left one of them out would show.
    assert (first["losses"] - second["losses"]).abs().min() > 1e-3

    assert first["gradients"].keys() == second["gradients"].keys() >= single["gradients"].keys()
    for name, gradient in single["gradients"].items():
        torch.testing.assert_close(
            first["gradients"][name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m: f"{name}: {m}"
        )
    assert single["gradients"]["model.audio.projection.weight"].abs().max() > 0.1

    moved = 0.0
    for name, value in single["state"].items():
        for found in (first, second):
            torch.testing.assert_close(
                found["state"][name], value, atol=1e-5, rtol=1e-5, msg=lambda m: f"{name}: {m}"
            )
        if name.startswith("model."):
            moved = max(moved, float((value - initial[name]).abs().max()))
    assert moved > 0.01


def test_ranks_hold_the_same_weights_and_queues(case) -> None:
    _, single, first, second = case
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    for name in single["state"]:
        if name.endswith(("clip_ids", "caption_ids", "position")):
            assert torch.equal(first["state"][name], single["state"][name]), name
    if "audio_queue.position" in single["state"]:
        # Full, and 5 batches of 6 written into 10 rows.
        assert single["state"]["audio_queue.position"][:2].tolist() == [QUEUE, 0]


def test_the_halves_differ_in_length(ranks) -> None:
    assert (ranks[0]["tokens"] != ranks[1]["tokens"]).any()
    # 2,560 samples are one step of tokens: the longest clips differ by at least one.
    steps = [(x["samples"] - 400) // 2560 for x in ranks]
    assert (steps[0] != steps[1]).any()


def test_negatives_of_the_own_batch_keep_the_ranks_together(ranks) -> None:
    first, second = (x["own_batch"] for x in ranks)
    assert torch.isfinite(first["losses"]).all() and torch.isfinite(second["losses"]).all()
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert first["state"]["text_queue.position"][:2].tolist() == [QUEUE, 0]


def test_queues_grow_on_both_ranks_alike(ranks) -> None:
    states = [found["auto"] for found in ranks]
    for modality in ("audio", "text"):
        for name in ("embeddings", "clip_ids", "caption_ids", "position"):
            first, second = (state[f"{modality}_queue.{name}"] for state in states)
            assert torch.equal(first, second)
        count, _, size, _ = first.tolist()
        assert size > AUTO.queue_min and count > AUTO.queue_min


def test_uneven_batches_add_up_to_the_whole(ranks, tiny_model, tiny_batch) -> None:
    criterion = CASES["moco_atc"][0](tiny_model(seed=0)).train()
    expected = criterion(**global_batch(tiny_batch, 0))["loss"]
    first, second = (x["uneven"] for x in ranks)
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, expected.detach())
    for name, value in criterion.state_dict().items():
        if "queue" in name:
            assert torch.equal(first["state"][name], second["state"][name]), name
            torch.testing.assert_close(first["state"][name], value, atol=1e-6, rtol=1e-6)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
