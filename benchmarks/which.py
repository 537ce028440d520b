"""Which of these do I need? What each way to train less costs: memory, largest batch, arithmetic.

    python -m benchmarks.which [--criteria moco_atc moco_atc_atm] [--check]

The paper's models (BEATs-base and BERT-base) on tensors without data, as `benchmarks.memory` counts
them: no GPU is needed. Memory is a constant and so much a pair, which two counts give and a third
one confirms; from it follows the largest batch on a GPU of each size. Arithmetic is counted product
by product, forward and backward, with attention written out.

``--check`` compares the counts with the memory that real steps of a smaller model take on this CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.encoders.beats.fbank import FRAME_LENGTH, fbank
from atr_moco_plugin.encoders.beats.relative_position import distance_buckets
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import RetrievalModelConfig
from benchmarks import memory
from benchmarks.memory import CAPTION_TOKENS, GIB, count_step, make_criterion

QUEUE = 16_384
SIZES = (8, 16, 24, 80)
"""GPUs, in GB as their makers write it."""

_GB = 1e9
_TAKEN = 1.5e9
"""Bytes of a GPU that the CUDA context, its libraries and fragmentation take."""

_MANY = 1_000
"""Pairs beyond which a batch is as large as anybody wants."""


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        title: of its row.
        options: of the model.
        chunk_size: of gradient caching.
        cached: outputs of frozen towers come in place of clips and captions.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    chunk_size: int | None = None
    cached: bool = False


def _both(**options: Any) -> dict[str, Any]:
    return {"audio": {"name": "beats", **options}, "text": {"name": "bert", **options}}


LORA = {"adapter": {"lora": {"rank": 8}}}
HALF: dict[str, Any] = {"patch_dropout": {}}

WAYS = {
    "all": Way("everything trains"),
    "half": Way("the same, half of the audio tokens dropped", HALF),
    "chunks": Way("the same, in chunks of 4", chunk_size=4),
    "lora": Way("LoRA in all layers", _both(**LORA)),
    "lora_half": Way("the same, half of the audio tokens dropped", {**_both(**LORA), **HALF}),
    "lora_chunks": Way("LoRA in all layers, in chunks of 4", _both(**LORA), chunk_size=4),
    "6": Way("6 layers of each encoder frozen", _both(freeze=6)),
    "9": Way("9 layers frozen", _both(freeze=9)),
    "frozen": Way("both encoders frozen", _both(freeze="all")),
    "cached": Way("the same, outputs from disk", _both(freeze="all"), cached=True),
}


@dataclass(frozen=True)
class Cost:
    """What a step costs, for a batch of any size.

    Attributes:
        fixed: bytes whatever the batch.
        per_pair: bytes more for each pair.
        flops: of a pair.
    """

    fixed: float
    per_pair: float
    flops: float

    def largest_batch(self, gigabytes: float) -> int:
        """Pairs that fit; 0 if none does."""
        return max(0, int((gigabytes * _GB - _TAKEN - self.fixed) / self.per_pair))


class _WrittenOut(TorchFunctionMode):
    """Attention as its two products, which a counter of products sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key, value = args
            return (query @ key.transpose(-2, -1)).softmax(-1) @ value
        return func(*args, **kwargs)


def count_flops(name: str, model: RetrievalModelConfig, way: Way, batch_size: int) -> int:
    """Floating-point operations of one step's products, of all pairs together.

    Args:
        name: of the criterion.
        model: what it is built around.
        way: how it trains.
        batch_size: pairs.
    """
    with torch.device("meta"):
        criterion = make_criterion(name, model, QUEUE)
    use_chunks(criterion, way.chunk_size)
    with ExitStack() as stack:
        fbank(torch.zeros(1, FRAME_LENGTH))
        stack.callback(distance_buckets.cache_clear)
        stack.enter_context(memory.fake_tensors())
        memory._make_fake(criterion)
        memory.fill_queues(criterion)
        trained = [p for p in criterion.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained)
        stack.enter_context(_WrittenOut())
        with FlopCounterMode(display=False) as counter:
            memory.one_step(criterion, optimizer, batch_size, False, CAPTION_TOKENS, way.cached)
    return int(counter.get_total_flops())


def cost(name: str, way: Way, *, autocast: bool = True) -> Cost:
    """Count a way at three batch sizes.

    Raises:
        RuntimeError: if memory is not a constant and so much a pair.
    """
    model = build_config(RetrievalModelConfig, dict(way.options), "model")
    sizes = (16, 32, 64) if way.chunk_size is None else (8, 16, 32)  # every chunk is counted
    small, middle, large = (
        count_step(
            name, model, batch_size, QUEUE,
            autocast=autocast, chunk_size=way.chunk_size, cached=way.cached,
        ).peak
        for batch_size in sizes
    )  # fmt: skip
    per_pair = (large - middle) / (sizes[2] - sizes[1])
    fixed = large - sizes[2] * per_pair
    if abs(fixed + sizes[0] * per_pair - small) > 0.03 * small:
        raise RuntimeError(f"{name}, {way.title}: memory is not linear in the batch.")
    return Cost(fixed, per_pair, count_flops(name, model, way, sizes[0]) / sizes[0])


def table(name: str, ways: Sequence[Way] = tuple(WAYS.values())) -> str:
    """What each way costs with one criterion."""
    rows: list[list[str]] = []
    first: Cost | None = None
    for way in ways:
        found = cost(name, way)
        first = first or found
        batches = [
            f"{found.largest_batch(size):,}" if found.largest_batch(size) else "-" for size in SIZES
        ]
        rows.append([
            way.title, f"{found.fixed / GIB:.1f}", f"{found.per_pair / 2**20:,.1f}", *batches,
            f"{found.flops / 1e12:.3f}", f"{found.flops / first.flops:.2f}",
        ])  # fmt: skip
        print(f"{name}: {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    header = [
        name, "GiB whatever the batch", "MiB a pair", *(f"batch at {size} GB" for size in SIZES),
        "TFLOP a pair", "beside everything",
    ]  # fmt: skip
    return Table(header, rows).markdown()


def _shown(pairs: int) -> str:
    return "-" if not pairs else f"{pairs:,}" if pairs < _MANY else f"over {_MANY:,}"


def check(batch_sizes: Sequence[int] = (4, 8)) -> str:
    """The count beside what a real step takes, as a table."""
    rows = []
    for key, way in WAYS.items():
        small = _for_halfway(way)
        for batch_size in batch_sizes:
            counted = count_step(
                "moco_atc_atm", memory.halfway(small.options), batch_size, QUEUE,
                autocast=False, cuda=False, chunk_size=small.chunk_size, cached=small.cached,
            ).peak  # fmt: skip
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.which", "--real", key, str(batch_size)],
                check=True, capture_output=True, text=True,
                env=memory.measurable(),
            )  # fmt: skip
            real = int(run.stdout)
            rows.append([
                way.title, str(batch_size), f"{counted / 2**20:,.0f}", f"{real / 2**20:,.0f}",
                f"{100 * (counted / real - 1):+.1f} %",
            ])  # fmt: skip
            print(f"check: {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    return Table(["moco_atc_atm", "batch", "counted MiB", "real MiB", "error"], rows).markdown()


def _for_halfway(way: Way) -> Way:
    """The same for the smaller model, which has 4 layers in each encoder."""
    layers = {6: 2, 9: 3}

    def fewer(options: Mapping[str, Any]) -> dict[str, Any]:
        found = {k: fewer(v) if isinstance(v, Mapping) else v for k, v in options.items()}
        if "freeze" in found:
            found["freeze"] = layers.get(found["freeze"], found["freeze"])
        return found

    chunk_size = None if way.chunk_size is None else 2
    return Way(way.title, fewer(way.options), chunk_size, way.cached)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--criteria", nargs="+", default=["moco_atc", "moco_atc_atm"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--check", action="store_true", help="compare with real steps on this CPU")
    parser.add_argument("--real", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.real:
        way = _for_halfway(WAYS[args.real[0]])
        print(
            memory.real_step(
                "moco_atc_atm", int(args.real[1]), QUEUE, way.options, way.chunk_size, way.cached
            )
        )
        return
    if args.check:
        print(check())
        return
    for name in args.criteria:
        print(table(name, [WAYS[key] for key in args.ways]), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
