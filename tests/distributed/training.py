"""What several processes train here, and one process beside them.

As a script it imports everything once and forks the gloo processes of the test. A program is twenty
optimizer steps over batches that are cut into a part for each rank.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from conftest import TINY_AUDIO, TINY_TEXT, make_tiny_batch, make_tiny_model
from gloo import process_group
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    Dcl,
    DclConfig,
    MLtm,
    MLtmConfig,
    MLtmFull,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    Siglip,
    SiglipConfig,
    SogClr,
    SogClrConfig,
    moco_atc,
    queue_start,
)
from atr_moco_plugin.distributed import process_index, world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import RetrievalModel

STEPS = 20
ROWS = 186  # that a program writes
QUEUE = 21  # so it wraps eight times, at another row each time
OPTIONS = {"momentum": 0.5, "alpha_warmup_steps": 5, "queue_size": QUEUE}
ALL_RANKS = MocoAtcAtmConfig(atm_start=0, **OPTIONS, negatives="all_ranks")
OWN_BATCH = MocoAtcAtmConfig(atm_start=0, **OPTIONS, negatives="batch")
# Its queue enters when its rows are steady; one step of 8 pairs moves the copies as OPTIONS does.
ONLINE_COLUMNS = MocoAtcConfig(
    columns="online",
    momentum=0.917,
    momentum_per="pair",
    momentum_schedule="cosine",
    queue_size=QUEUE,
    queue_warmup_steps="auto",
)
BOTH_COLUMNS = MocoAtcConfig(**OPTIONS, columns="both")
ONLINE_KEYS = MocoAtcAtmConfig(
    atm_start=0,
    keys="online",
    columns="online",
    alpha=0.0,
    queue_size=QUEUE,
    negatives="all_ranks",
)
# Full in the first step of 8 rows, and with the double of its rows in the next.
AUTO = MocoAtcConfig(momentum=0.5, queue_size="auto", queue_min=8, queue_max=20)

CASES: dict[str, tuple[type[Atc], AtcConfig, str]] = {
    "atc": (Atc, AtcConfig(positives="clip_or_caption"), "blip"),
    "dcl": (Dcl, DclConfig(), "blip"),
    "siglip": (Siglip, SiglipConfig(), "blip"),
    "sogclr": (SogClr, SogClrConfig(), "blip"),
    "m_ltm": (MLtm, MLtmConfig(positives="clip_or_caption"), "blip"),
    "m_ltm_full": (MLtmFull, MLtmConfig(positives="clip_or_caption"), "blip"),
    "moco_atc": (MocoAtc, MocoAtcConfig(**OPTIONS), "blip"),
    "moco_atc_atm": (MocoAtcAtm, ALL_RANKS, "blip"),
    "moco_atc_both": (MocoAtc, BOTH_COLUMNS, "blip"),
    "moco_atc_online": (MocoAtc, ONLINE_COLUMNS, "blip"),
    "moco_atc_atm_online": (MocoAtcAtm, ONLINE_KEYS, "blip"),
    # Its head reads the gathered text states, so their gradient crosses the ranks too.
    "moco_atc_atm_albef": (MocoAtcAtm, ALL_RANKS, "albef"),
    "atc_chunks": (Atc, AtcConfig(positives="clip_or_caption"), "blip"),
    "moco_atc_atm_chunks": (MocoAtcAtm, ALL_RANKS, "blip"),
}
"""Criterion, options and fusion of the model, which are equal on one process and on several."""

WRAPPERS = ("ddp", *(("fsdp",) if find_spec("fairseq2") else ()))


def cases(wrapper: str, ranks: int) -> list[str]:
    """What is trained in how many processes; all of it with ``ALL_CASES=1`` in the environment,
    which takes minutes."""
    if os.environ.get("ALL_CASES") or (wrapper, ranks) == ("ddp", 2):
        # FSDP2 cannot compute a part again that it has sharded again; chunks refuse it.
        return [name for name in CASES if wrapper == "ddp" or not name.endswith("_chunks")]
    few = ["moco_atc_atm"]
    return ["moco_atc", "moco_atc_atm_online", *few] if ranks == 2 else few


@dataclass
class Step:
    """One optimizer step."""

    seeds: list[int]
    """Of its batches, the gradients of which are accumulated."""

    size: int = 8
    """Pairs of each batch, over all ranks."""

    no_sync: bool = False
    """Exchange gradients after the last of its batches only."""


def program(steps: int = STEPS) -> list[Step]:
    """Plain steps, accumulated ones with and without ``no_sync``, and last batches of an epoch, of
    which some ranks have more than others."""
    found = [Step([10 * i]) for i in range(steps)]
    for i in range(0, steps, 10):
        found[i + 1] = Step([10 * i + 1, 10 * i + 2])
        found[i + 2] = Step([10 * i + 3, 10 * i + 4], no_sync=True)
        found[i + 3] = Step([10 * i + 5], size=5)
    return found


def global_batch(seed: int, size: int) -> dict[str, Any]:
    """A batch in which two items of different ranks share a clip, and two others a caption; in
    every other small one all share their clip but one, so that some have no hard negative."""
    batch = make_tiny_batch(b=size, seed=seed)
    batch["clip_ids"][3] = batch["clip_ids"][0]
    batch["caption_ids"][4] = batch["caption_ids"][1]
    if size < 8 and seed > 100:
        batch["clip_ids"][:-1] = batch["clip_ids"][0]
        batch["clip_ids"][-1] = batch["clip_ids"][1] if seed % 2 else batch["clip_ids"][-1]
    return batch


def part_of(batch: dict[str, Any], of_rank: int, ranks: int) -> dict[str, Any]:
    """The rows of a rank, cut to the longest clip and caption among them as a loader would."""
    rows = torch.arange(len(batch["clip_ids"])).tensor_split(ranks)[of_rank]
    lengths, mask = batch["audio"]["lengths"][rows], batch["text"]["mask"][rows]
    samples, tokens = int(lengths.max()), int(mask.sum(dim=1).max())
    return {
        "audio": {"waveforms": batch["audio"]["waveforms"][rows, :samples], "lengths": lengths},
        "text": {"input_ids": batch["text"]["input_ids"][rows, :tokens], "mask": mask[:, :tokens]},
        "clip_ids": batch["clip_ids"][rows],
        "caption_ids": batch["caption_ids"][rows],
    }


def make_model(seed: int = 0, fusion: str = "blip") -> RetrievalModel:
    """One layer in each tower, since what is shown here does not depend on their number."""
    text_layers = 2 if fusion == "albef" else 1  # the upper one goes to the head
    audio, text = {**TINY_AUDIO, "encoder_layers": 1}, {**TINY_TEXT}
    text["num_hidden_layers"] = text_layers
    return make_tiny_model(
        seed,
        fusion,
        audio={"name": "beats", "config": audio},
        text={"name": "bert", "config": text},
    )


def build(name: str, seed: int = 0) -> Atc:
    kind, config, fusion = CASES[name]
    criterion = kind(make_model(seed, fusion), config).train()
    criterion.total_steps = STEPS
    criterion.chunk_size = 2 if name.endswith("_chunks") else None
    criterion.total_steps = STEPS
    return criterion


def local(x: Tensor) -> Tensor:
    """A copy of what this rank has of a tensor, that FSDP may have sharded."""
    return getattr(x, "to_local", x.clone)().clone()


def put_together(
    parts: list[dict[str, Tensor]], like: dict[str, Tensor]
) -> list[dict[str, Tensor]]:
    """For every rank whole tensors, where FSDP left it rows of them."""
    joined = {
        key: torch.cat([part[key] for part in parts])
        for key, value in like.items()
        if value.ndim and (parts[0][key].shape != value.shape or not len(parts[-1][key]))
    }
    return [{**part, **joined} for part in parts]


# So that a program of twenty steps has the queue in its loss.
@patch.multiple(queue_start, ASK_EVERY=4, ENTER=0.9)
def train(
    criterion: Atc,
    module: Any = None,
    no_sync: Callable[[], Any] = nullcontext,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Run the program on this rank's part of each batch, and return what must agree. Plain SGD:
    Adam would turn the rounding of a gradient that is zero in exact arithmetic, such as that of a
    key bias, into a step of full size.

    Args:
        criterion: the bare criterion.
        module: the same, wrapped for data parallelism.
        no_sync: context in which the wrapper keeps gradients to this rank.
        steps: how many of the program.
    """
    module = module or criterion
    weights = [p for p in criterion.model.parameters() if p.requires_grad]
    own = [p for name, p in criterion.named_parameters() if "." not in name]
    # The gradient of the temperature is large enough to throw it to an end of its range.
    groups = [{"params": weights}, {"params": own, "lr": 1e-4}]
    optimizer = SGD(groups, lr=0.02)
    handle = criterion.attach(optimizer)
    losses, shapes, gradients = [], [], {}
    for at, step in enumerate(program(steps)):
        optimizer.zero_grad()
        for seed in step.seeds:
            batch = part_of(global_batch(seed, step.size), process_index(), world_size())
            with no_sync() if step.no_sync and seed != step.seeds[-1] else nullcontext():
                loss = module(**batch)["loss"]
                (loss / len(step.seeds)).backward()
            losses.append(loss.detach())
            shapes.append([batch["audio"]["waveforms"].size(1), batch["text"]["mask"].size(1)])
        if at in (0, steps - 1):
            named = {k: p.grad for k, p in criterion.named_parameters() if p.grad is not None}
            gradients |= {f"{at}.{name}": local(x) for name, x in named.items()}
        optimizer.step()
    handle.remove()
    return {
        "losses": torch.stack(losses),
        "shapes": torch.tensor(shapes),
        "gradients": gradients,
        "state": {name: local(value) for name, value in criterion.state_dict().items()},
    }


def train_wrapped(name: str, wrapper: str) -> tuple[Atc, dict[str, Any]]:
    # Ranks start from different weights; the wrapper must carry those of rank 0 over.
    criterion = build(name, seed=process_index())
    if wrapper == "ddp":
        # The criteria without a matching loss leave the head out.
        unused = "atm" not in name
        ddp = DistributedDataParallel(
            criterion, broadcast_buffers=False, find_unused_parameters=unused
        )
        return criterion, train(criterion, ddp, ddp.no_sync)

    from fairseq2.gang import ProcessGroupGang, create_fsdp_gangs, create_parallel_gangs
    from fairseq2.nn.fsdp import fsdp2_no_sync, to_fsdp2

    from atr_moco_plugin.hosts.fairseq2.training.model import apply_fsdp

    gangs = create_parallel_gangs(ProcessGroupGang(dist.group.WORLD, torch.device("cpu")))
    sharded = to_fsdp2(
        criterion,
        create_fsdp_gangs(gangs),
        lambda module, wrap: apply_fsdp(module, "layer", wrap),
        broadcast_state=True,
    )
    return criterion, train(criterion, sharded, lambda: fsdp2_no_sync(sharded))


class Exchanges(TorchDispatchMode):
    """Counts collectives, whatever function makes them."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace == "c10d"
        return func(*args, **(kwargs or {}))


def what_sharded_chunks_say() -> str:
    """Why a criterion that FSDP has sharded is not run in chunks."""
    try:
        train_wrapped("moco_atc_atm_chunks", "fsdp")
    except InputError as ex:
        return str(ex)
    return ""


def exchanges_of_a_step(name: str) -> int:
    """Collectives of a criterion's forward and backward pass on uneven parts of a batch, without
    those of a wrapper."""
    criterion = build(name)
    batch = part_of(global_batch(0, 7), process_index(), world_size())
    with Exchanges() as exchanges:
        criterion(**batch)["loss"].backward()
    return exchanges.count


def message_of_the_check(criterion: Atc) -> str:
    """What the comparison of the queues says, which is due when a program has ended."""
    try:
        criterion.on_optimizer_step()
    except RuntimeError as ex:
        return str(ex)
    return ""


def flip_one_bit(x: Tensor) -> None:
    x.view(torch.int32)[3, 2] ^= 1


def swap_two_rows(x: Tensor) -> None:
    x[[1, 2]] = x[[2, 1]]


def run_all() -> dict[str, Any]:
    """Every case under every wrapper, and then the comparison of what was spoilt on rank 1."""
    moco_atc.QUEUE_CHECK_EVERY = STEPS
    results: dict[str, Any] = {}
    for wrapper in WRAPPERS:
        for name in cases(wrapper, world_size()):
            criterion, results[f"{wrapper}.{name}"] = train_wrapped(name, wrapper)
        if process_index() == 1:
            flip_one_bit(criterion.text_queue.embeddings)
        results[f"{wrapper}.spoilt"] = message_of_the_check(criterion)

    if world_size() > 2:
        return results
    if "fsdp" in WRAPPERS:
        results["sharded_chunks"] = what_sharded_chunks_say()
    results["exchanges"] = {name: exchanges_of_a_step(name) for name in CASES}
    moco_atc.QUEUE_CHECK_EVERY = 4
    criterion = MocoAtcAtm(make_model(), OWN_BATCH).train()
    results["own_batch"] = train(criterion, DistributedDataParallel(criterion), steps=4)
    if process_index() == 1:
        swap_two_rows(criterion.audio_queue.caption_ids)
    results["swapped"] = message_of_the_check(criterion)

    # No matching loss: the head takes no part, and no wrapper is needed for the queues.
    criterion = MocoAtc(make_model(), AUTO).train()
    results["auto"] = train(criterion, steps=4)["state"]

    loaded = MocoAtc(make_model(), AUTO)
    if process_index() == 1:
        loaded.load_state_dict(criterion.state_dict())
    results["loaded"] = message_of_the_check(loaded)
    return results


def run_rank(own_rank: int, ranks: int, folder: Path) -> None:
    with process_group(own_rank, ranks, folder):
        torch.save(run_all(), folder / f"{own_rank}_of_{ranks}.pt")


def main(folder: Path, *counts: int) -> None:
    torch.set_num_threads(1)
    if "fsdp" in WRAPPERS:
        # The host first: it makes fairseq2 importable where the system has no libsndfile.
        import_module("atr_moco_plugin.hosts.fairseq2")
        for name in ("fairseq2.nn.fsdp", "torch.distributed.tensor"):
            import_module(name)
    fork = multiprocessing.get_context("fork")
    for ranks in counts:
        processes = [fork.Process(target=run_rank, args=(i, ranks, folder)) for i in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
