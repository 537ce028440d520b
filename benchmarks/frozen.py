"""What the momentum method costs where most of the network stands still.

    python -m benchmarks.frozen [--threads 2]

BEATs-base and BERT-base with random weights, noise of 10 s and captions of 16 to 24 tokens. A step
is forward, backward, AdamW and the moving averages, in training mode; `moco_atc`, `atc` and
`moco_atc_atm` take turns on one model. The queue has 4,096 rows, as for the few thousand pairs that
one freezes for. Memory is what a step of `moco_atc_atm` holds: weights, averages, states of AdamW
and the most of activations and gradients. Cached towers give their outputs to a batch: pooled ones
from memory and as a loader reads them from a cache on disk, and tokens for a pooling that trains.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from atr_moco_plugin.model.pooling import build_pooling
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.step import TINY, fill, make_batch, one_step

FREEZES = {
    "everything trained": ("none", 1.2),
    "6 layers of each encoder frozen": (6, 1.15),
    "9 layers frozen": (9, 1.1),
    "12 layers frozen": (12, 1.02),
}
QUEUE = 4_096
CACHED_BATCH = 64


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    b, seconds, rounds = (4, 0.5, 1) if tiny else (2, 10.0, 4)
    freezes = {"1 layer frozen": (1, None)} if tiny else FREEZES
    queue = 16 if tiny else QUEUE
    torch.manual_seed(0)
    model = build_model(model_config(TINY if tiny else {})).to(device)
    batch = make_batch(b, seconds, device)
    kinds: list[tuple[str, Any, float | None]] = [(x, *y) for x, y in freezes.items()]
    kinds.append(("both encoders frozen", "all", None))
    if find_spec("peft"):
        kinds.append(("LoRA on all layers", None, 1.3))
    trained: tuple[float, float] | None = None
    for name, freeze, target in kinds:
        for tower in (model.audio, model.text):
            freeze_encoder(tower, freeze or "none")
            if freeze is None:
                add_adapters(tower, AdapterConfig())
        moco, atc, matching, held = _steps(model, batch, queue, device, rounds)
        sizes = f"B {b}, Q {queue:,}: {name}"
        yield Row(
            name=f"moco_atc step, {sizes}", baseline_name="atc step", ours=moco, baseline=atc,
            target=target, cost=True,
        )  # fmt: skip
        trained = trained or (matching, held)
        for what, ours, baseline, unit in (
            ("time", matching, trained[0], "s"),
            ("memory", held, trained[1], "MiB"),
        ):
            yield Row(
                name=f"moco_atc_atm, {sizes}, {what} of a step", baseline_name=kinds[0][0],
                ours=ours, baseline=baseline, unit=unit, cost=True,
            )  # fmt: skip
        if freeze == "all":
            yield from _cached(model, queue, device, tiny)


def _steps(
    model: RetrievalModel, batch: dict[str, Any], queue: int, device: torch.device, rounds: int
) -> tuple[float, float, float, float]:
    """Seconds of a step of ``moco_atc``, ``atc`` and ``moco_atc_atm``, and MiB that the last one
    holds."""
    moco, atc = _criteria(model, queue, device)
    matching = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=queue)).to(device).train()
    fill(moco, batch)
    fill(matching, batch)
    optimizer = _optimizer(model, moco, atc, matching)
    steps = [partial(one_step, x, optimizer, batch) for x in (moco, atc, matching)]
    seconds = harness.fastest(steps, device, rounds=rounds)
    states = (x for state in optimizer.state.values() for x in state.values())
    held = _mib(chain(matching.parameters(), matching.buffers(), states))
    return seconds[0], seconds[1], seconds[2], held + harness.peak_mib(steps[2], device)


def _criteria(model: RetrievalModel, queue: int, device: torch.device) -> tuple[MocoAtc, Atc]:
    gc.collect()  # the copies of before
    moco = MocoAtc(model, MocoAtcConfig(queue_size=queue)).to(device).train()
    return moco, Atc(model, AtcConfig()).to(device).train()


def _optimizer(model: nn.Module, *criteria: Atc) -> AdamW:
    weights = [p for p in model.parameters() if p.requires_grad]
    return AdamW([*weights, *(c.temperature for c in criteria)], lr=1e-6, fused=True)


def _mib(tensors: Iterable[Tensor]) -> float:
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values()) / 2**20


def _cached(model: RetrievalModel, queue: int, device: torch.device, tiny: bool) -> Iterator[Row]:
    """``moco_atc`` over ``atc`` on outputs of frozen towers: pooled, and tokens that a trained
    pooling reads."""
    rounds = 2 if tiny else 50
    with _reading(model, device, tiny) as read:
        yield from _cached_rows(model, queue, device, read, rounds, ("alone", "reading"), "pooled")
    mean, width = model.audio.pooling, model.audio.encoder.width
    model.audio.pooling = build_pooling("attention", width).to(device)
    with _reading(model, device, tiny) as read:
        name = "tokens with attention pooling"
        yield from _cached_rows(model, queue, device, read, rounds // 4 + 1, ("reading",), name)
    model.audio.pooling = mean


@contextmanager
def _reading(
    model: RetrievalModel, device: torch.device, tiny: bool
) -> Iterator[Callable[[], dict[str, Any]]]:
    """What reads the next batch from a cache of the model's outputs."""
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
        yield lambda: _arguments(next(endless), device)


def _cached_rows(
    model: RetrievalModel, queue: int, device: torch.device, read: Callable[[], dict[str, Any]],
    rounds: int, kinds: Sequence[str], name: str,
) -> Iterator[Row]:  # fmt: skip
    moco, atc = _criteria(model, queue, device)
    batch = read()
    fill(moco, batch)
    optimizer = _optimizer(model, moco, atc)

    def step(criterion: Atc, reads: bool) -> None:
        one_step(criterion, optimizer, read() if reads else batch)

    for kind in kinds:
        reads = kind == "reading"
        steps = [partial(step, x, reads) for x in (moco, atc)]
        ours, baseline = harness.fastest(steps, device, rounds=rounds)
        what = "with reading its batch" if reads else "the step alone"
        yield Row(
            name=f"moco_atc step, B {len(batch['clip_ids'])}, Q {queue:,}: cached towers, {name}, "
            f"{what}",
            baseline_name="atc step", ours=ours, baseline=baseline, target=1.1 if reads else None,
            cost=True,
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
