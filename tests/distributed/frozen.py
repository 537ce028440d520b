"""What two processes train of a model with frozen parts, and one process beside them."""

from __future__ import annotations

import multiprocessing
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from conftest import TINY_AUDIO, TINY_TEXT, make_tiny_model
from gloo import process_group
from torch.nn.parallel import DistributedDataParallel
from training import ALL_RANKS, WRAPPERS, global_batch, local, part_of

from atr_moco_plugin.criterion import MocoAtcAtm
from atr_moco_plugin.distributed import process_index, world_size

STEPS = 4
FREEZES: dict[str, tuple[Any, Any]] = {"layers": (1, 1), "audio": ("all", 1), "text": (1, "all")}
ADAPTED = {
    "adapters": ("none", "none"),
    "layers_adapters": (1, 1),
}
"""Freezes beside adapters."""
KINDS = [*FREEZES, *(ADAPTED if find_spec("peft") else ())]


def build(freeze: str, seed: int = 0) -> MocoAtcAtm:
    audio, text = (FREEZES | ADAPTED)[freeze]
    adapter = {"lora": {"rank": 2}} if freeze in ADAPTED else None
    model = make_tiny_model(
        seed,
        audio={"name": "beats", "config": TINY_AUDIO, "freeze": audio, "adapter": adapter},
        text={"name": "bert", "config": TINY_TEXT, "freeze": text, "adapter": adapter},
    )
    return MocoAtcAtm(model, ALL_RANKS).train()


def train(criterion: MocoAtcAtm, module: Any = None) -> dict[str, Any]:
    """Losses and the weights at the end."""
    weights = [p for p in criterion.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.02)
    handle = criterion.attach(optimizer)
    losses = []
    for step in range(STEPS):
        batch = part_of(global_batch(step, 8), process_index(), world_size())
        loss = (module or criterion)(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    handle.remove()
    state = {name: local(x) for name, x in criterion.state_dict().items()}
    return {"losses": torch.stack(losses), "state": state}


def wrapped(criterion: MocoAtcAtm, wrapper: str) -> Any:
    if wrapper == "ddp":
        return DistributedDataParallel(criterion, broadcast_buffers=False)

    from fairseq2.gang import ProcessGroupGang, create_fsdp_gangs, create_parallel_gangs
    from fairseq2.nn.fsdp import to_fsdp2

    from atr_moco_plugin.hosts.fairseq2.training.model import apply_fsdp

    gangs = create_parallel_gangs(ProcessGroupGang(dist.group.WORLD, torch.device("cpu")))
    return to_fsdp2(
        criterion,
        create_fsdp_gangs(gangs),
        lambda module, wrap: apply_fsdp(module, "layer" if wrapper == "fsdp" else "stack", wrap),
        broadcast_state=True,
    )


def run_rank(own_rank: int, folder: Path) -> None:
    kinds = [*WRAPPERS, *(["fsdp_stack"] if "fsdp" in WRAPPERS else [])]
    with process_group(own_rank, 2, folder):
        found = {}
        for wrapper in kinds:
            for freeze in KINDS:
                criterion = build(freeze, seed=process_index())
                found[f"{wrapper}.{freeze}"] = train(criterion, wrapped(criterion, wrapper))
        torch.save(found, folder / f"{own_rank}.pt")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    if "fsdp" in WRAPPERS:
        import atr_moco_plugin.hosts.fairseq2  # noqa: F401 makes fairseq2 importable
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run_rank, args=(i, folder)) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(int(any(process.exitcode for process in processes)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
