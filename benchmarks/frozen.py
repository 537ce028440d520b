"""What the momentum method costs where most of the network stands still.

    python -m benchmarks.frozen [--threads 2]

BEATs-base and BERT-base with random weights, noise of 10 s and captions of 16 to 24 tokens. A step
is forward, backward, AdamW and the moving averages, in training mode; `moco_atc` and `atc` take
turns on one model. The queue has 4,096 rows, as for the few thousand pairs that one freezes for,
and for comparison 65,536. Memory is what a step holds: weights, averages, states of AdamW and
the most of activations and gradients. Cached towers give their pooled outputs to a batch, once from
memory and once as a loader reads them from a cache on disk.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
)
from atr_moco_plugin.data import AudioReader, PairLoader, ToyConfig, open_toy
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.towers import open_caches
from atr_moco_plugin.model import (
    AdapterConfig,
    RetrievalModel,
    add_adapters,
    build_model,
    freeze_encoder,
    model_config,
)
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.step import TINY, fill, make_batch, one_step

FREEZES = {
    "everything trained": ("none", 1.2),
    "6 layers of each encoder frozen": (6, 1.15),
    "9 layers frozen": (9, 1.1),
    "12 layers frozen": (12, 1.02),
}
QUEUE, LONG_QUEUE = 4_096, 65_536
CACHED_BATCH = 64
Step = Callable[[], object]


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    b, seconds, rounds = (4, 0.5, 1) if tiny else (4, 10.0, 4)
    freezes = {"1 layer frozen": (1, None)} if tiny else FREEZES
    queue, long_queue = (16, 32) if tiny else (QUEUE, LONG_QUEUE)
    torch.manual_seed(0)
    model = build_model(model_config(TINY if tiny else {})).to(device)
    batch = make_batch(b, seconds, device)
    kinds: list[tuple[str, Any, float | None]] = [(x, *y) for x, y in freezes.items()]
    kinds.append(("both encoders frozen", "all", None))
    if find_spec("peft"):
        kinds.append(("LoRA on all layers", None, 1.3))
    trained: tuple[float, float] | None = None
    for name, freeze, target in kinds:
        if freeze is None:
            for tower in (model.audio, model.text):
                freeze_encoder(tower, "none")
                add_adapters(tower, AdapterConfig())
        else:
            for tower in (model.audio, model.text):
                freeze_encoder(tower, freeze)
        for size in (queue, long_queue):
            yield _cost(model, batch, size, name, device, rounds, target if size == queue else None)
        step = _matching(model, batch, queue, device, rounds)
        sizes = f"moco_atc_atm, B {b}, Q {queue:,}: {name}"
        trained = trained or step
        for (ours, baseline), unit in zip(zip(step, trained, strict=True), "s MiB".split(),
                                          strict=True):  # fmt: skip
            yield Row(
                name=f"{sizes}, {'time' if unit == 's' else 'memory'} of a step",
                baseline_name=kinds[0][0], ours=ours, baseline=baseline, unit=unit,
            )  # fmt: skip
        if freeze == "all":
            yield from _cached(model, queue, device, tiny)


def _cost(
    model: RetrievalModel, batch: dict[str, Any], queue: int, name: str,
    device: torch.device, rounds: int, target: float | None,
) -> Row:  # fmt: skip
    """``moco_atc`` over ``atc`` on one batch."""
    moco, atc = _criteria(model, queue, device)
    fill(moco, batch)
    optimizer = _optimizer(model, moco, atc)
    steps = [partial(one_step, x, optimizer, batch) for x in (moco, atc)]
    ours, baseline = harness.fastest(steps, device, rounds=rounds)
    b = len(batch["clip_ids"])
    return Row(
        name=f"moco_atc step, B {b}, Q {queue:,}: {name}", baseline_name="atc step",
        ours=ours, baseline=baseline, target=target, cost=True,
    )  # fmt: skip


def _criteria(model: RetrievalModel, queue: int, device: torch.device) -> tuple[MocoAtc, Atc]:
    gc.collect()  # the copies of before
    moco = MocoAtc(model, MocoAtcConfig(queue_size=queue)).to(device).train()
    return moco, Atc(model, AtcConfig()).to(device).train()


def _optimizer(model: nn.Module, *criteria: Atc) -> AdamW:
    weights = [p for p in model.parameters() if p.requires_grad]
    return AdamW([*weights, *(c.temperature for c in criteria)], lr=1e-6, fused=True)


def _matching(
    model: RetrievalModel, batch: dict[str, Any], queue: int, device: torch.device, rounds: int
) -> tuple[float, float]:
    """Seconds of a step of ``moco_atc_atm``, and MiB that it holds."""
    gc.collect()
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(queue_size=queue)).to(device).train()
    fill(criterion, batch)
    optimizer = _optimizer(model, criterion)
    step = partial(one_step, criterion, optimizer, batch)
    (seconds,) = harness.fastest([step], device, rounds=max(rounds - 1, 1))
    states = (x for state in optimizer.state.values() for x in state.values())
    held = _mib(chain(criterion.parameters(), criterion.buffers(), states))
    return seconds, held + harness.peak_mib(step, device)


def _mib(tensors: Iterable[Tensor]) -> float:
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values()) / 2**20


def _cached(model: RetrievalModel, queue: int, device: torch.device, tiny: bool) -> Iterator[Row]:
    """``moco_atc`` over ``atc`` on pooled outputs, from memory and by way of a loader."""
    clips = 8 if tiny else 2 * CACHED_BATCH
    batch_size = 4 if tiny else CACHED_BATCH
    seconds = 0.5 if tiny else 10.0
    data = open_toy(ToyConfig(num_train=clips, num_valid=1, num_test=1, single_share=1))
    data.read_with(AudioReader(model.sample_rate))
    with tempfile.TemporaryDirectory() as folder:
        outputs = open_caches(
            model, data, "train", _tokens, CacheOptions(folder=Path(folder)),
            max_seconds=seconds, matches=False, say=lambda text: None,
        )  # fmt: skip
        loader = PairLoader(
            data, "train", _tokens, batch_size, max_seconds=seconds, shuffle=True, seed=0,
            drop_last=True, outputs=outputs,
        )  # fmt: skip
        endless = _endless(loader)
        moco, atc = _criteria(model, queue, device)
        batch = _arguments(next(endless), device)
        fill(moco, batch)
        optimizer = _optimizer(model, moco, atc)
        alone = [partial(one_step, x, optimizer, batch) for x in (moco, atc)]

        def read(criterion: Atc) -> None:
            one_step(criterion, optimizer, _arguments(next(endless), device))

        whole = [partial(read, x) for x in (moco, atc)]
        for name, steps, target in (("the step alone", alone, None),
                                    ("with reading its batch", whole, 1.1)):  # fmt: skip
            ours, baseline = harness.fastest(steps, device, rounds=2 if tiny else 50)
            yield Row(
                name=f"moco_atc step, B {batch_size}, Q {queue:,}: cached towers, {name}",
                baseline_name="atc step", ours=ours, baseline=baseline, target=target, cost=True,
            )  # fmt: skip


def _endless(loader: PairLoader) -> Iterator[Any]:
    while True:
        yield from loader


def _arguments(batch: Any, device: torch.device) -> dict[str, Any]:
    batch.to(device)
    return {
        "audio": batch.audio, "text": batch.text, "clip_ids": batch.clip_ids,
        "caption_ids": batch.caption_ids,
    }  # fmt: skip


def _tokens(captions: list[str]) -> tuple[Tensor, Tensor]:
    """Any ids: those of the first 24 letters."""
    ids = [[ord(x) % 900 + 5 for x in caption[:24]] for caption in captions]
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    counts = torch.tensor([len(row) for row in ids])
    return padded, torch.arange(length) < counts[:, None]


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
