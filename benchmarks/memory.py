"""How much memory a training step takes: the paper's models by criterion, batch and queue size.

    python -m benchmarks.memory [--batch-sizes 16 32 64] [--queue-sizes 16384 65536] [--check]

A whole training step (forward, backward, AdamW, averages) runs on fake tensors, which have shapes
and no data, while every storage that comes and goes is counted. So the table needs no GPU, and a
row takes some seconds whatever its batch size. Attention and autocast are taken as they are on
CUDA: a memory-efficient kernel, which keeps no probabilities, and float32 layer norms. ``--check``
compares the count with the memory that a real step of a smaller model takes on this CPU, there
with the CPU's own kernels.

Not counted: the CUDA context and libraries (about 0.5 to 1 GB a GPU), NCCL's buffers, and what
the allocator cannot use for fragmentation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import MocoAtcAtm
from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.encoders.beats.fbank import FRAME_LENGTH, fbank
from atr_moco_plugin.encoders.beats.relative_position import distance_buckets
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import RetrievalModelConfig, build_model
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.plugins import load
from atr_moco_plugin.tokens import AudioTokens, TextTokens

GIB = 2**30
SECONDS = 10.0
CAPTION_TOKENS = 32
"""Of the longest caption in a batch; the median of AudioCaps is about a third."""

HALFWAY: dict[str, Any] = {
    "embed_dim": 128,
    "audio": {
        "name": "beats",
        "config": {"encoder_layers": 4, "encoder_embed_dim": 384, "encoder_ffn_embed_dim": 1536,
                   "encoder_attention_heads": 6, "embed_dim": 256},
    },
    "text": {
        "name": "bert",
        "config": {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6,
                   "intermediate_size": 1536},
    },
}  # fmt: skip
"""A model between the toy and the paper's, for the check on a CPU."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make inside of it, until they are freed.

    Attributes:
        now: bytes at present.
        peak: the most there were since it was last set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen[storage] = None
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size: int) -> None:
        self.now -= size


class _WithoutGenerators(TorchDispatchMode):
    """Draws without a generator: fake tensors have no values, and some draws take none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not None:
            kwargs["generator"] = None
        return func(*args, **kwargs)


class _NothingWrong(TorchFunctionMode):
    """Checks of values, such as of ids on the CPU, find nothing: fake tensors have none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return False if func is Tensor.__bool__ else func(*args, **(kwargs or {}))


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors have shapes and no data in here, and steps of training run all the same."""
    with FakeTensorMode(allow_non_fake_inputs=True), _WithoutGenerators(), _NothingWrong():
        yield


class _EfficientAttention(torch.autograd.Function):
    """The shapes of CUDA's memory-efficient attention: what it returns and what it keeps."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        states = q.new_empty(*q.shape[:-1], v.size(-1))
        logsumexp = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, bias, states, logsumexp)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = zip(ctx.saved_tensors[:4], ctx.needs_input_grad, strict=True)
        return tuple(torch.empty_like(x) if needed else None for x, needed in wanted)


class CudaKernels(TorchFunctionMode):
    """Do on fake CPU tensors what takes as much memory as CUDA's kernels do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            q, k, v = args
            bias = kwargs.get("attn_mask")
            if torch.is_autocast_enabled("cpu"):
                q, k, v, bias = (x if x is None else x.bfloat16() for x in (q, k, v, bias))
            return _EfficientAttention.apply(q, k, v, bias)
        if func is F.layer_norm and torch.is_autocast_enabled("cpu"):
            args = tuple(x.float() if isinstance(x, Tensor) else x for x in args)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Step:
    """Bytes of one training step on one process.

    Attributes:
        weights: parameters of the online model.
        momentum: of its copies.
        queues: embeddings and ids.
        gradients: of all trained parameters.
        optimizer: AdamW's averages.
        activations: what is there at the peak besides: saved for backward, and the kernels' own.
        peak: the most bytes at any moment of the step.
        largest_part: weights of the largest part that FSDP2 gathers at once, a tower.
    """

    weights: int
    momentum: int
    queues: int
    gradients: int
    optimizer: int
    activations: int
    peak: int
    largest_part: int

    @property
    def ddp(self) -> int:
        """With DDP, whose buckets are a second copy of the gradients."""
        return self.peak + self.gradients

    def fsdp(self, processes: int) -> int:
        """With FSDP2: a share of everything but queues and activations, and gathered beside it the
        weights of the part at work and of the next, and the gradients of one."""
        shared = self.weights + self.momentum + self.optimizer + self.gradients
        return self.activations + self.queues + shared // processes + 3 * self.largest_part


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors that share none."""
    return sum(x.numel() * x.element_size() for x in tensors)


def make_criterion(
    name: str,
    model: RetrievalModelConfig,
    queue_size: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A criterion around its model, on the current default device; ``options`` take the place of
    ``queue_size``."""
    criterion_class = load("criteria", name)
    if options is None:
        options = {} if name == "atc" else {"queue_size": queue_size}
    if name == "moco_atc_atm":  # what a step costs once it matches
        options = {"atm_start": 0, **options}
    config = build_config(criterion_class.config_class, options, "criterion")
    criterion = criterion_class(build_model(model), config)
    criterion.total_steps = 1_000  # some schedules are over the whole run
    return criterion


def inputs(_: nn.Module, batch_size: int, tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Noise for both towers."""
    shape = (batch_size, tokens)
    text = {
        "input_ids": torch.ones(shape, dtype=torch.int64),
        "mask": torch.ones(shape, dtype=torch.bool),
    }
    return {"waveforms": torch.rand(batch_size, round(SECONDS * 16_000))}, text


def cached_inputs(
    criterion: nn.Module, batch_size: int, tokens: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Noise in place of what ``dataset.cache_embeddings`` keeps: pooled outputs, or those of every
    token in float16 for a matching head."""
    model = criterion.model
    widths = model.audio.encoder.width, model.text.encoder.width
    if not isinstance(criterion, MocoAtcAtm):
        audio, text = (torch.rand(batch_size, width) for width in widths)
        return {"pooled": audio}, {"pooled": text}
    patches = 8 * ((round(100 * SECONDS) - 2) // 16)  # BEATs: 160 ms by 16 of 128 bands
    states = [
        torch.rand(batch_size, length, width, dtype=torch.float16)
        for length, width in zip((patches, tokens), widths, strict=True)
    ]
    ids = torch.ones(batch_size, tokens, dtype=torch.int64)
    return (
        {"tokens": AudioTokens(states[0], states[0][..., 0] >= 0)},
        {"tokens": TextTokens(states[1], ids > 0, ids)},
    )


def one_step(
    criterion: nn.Module,
    optimizer: AdamW,
    batch_size: int,
    autocast: bool,
    tokens: int,
    cached: bool = False,
) -> None:
    """A step on noise, as a host makes one. ``cached``: of outputs of frozen towers."""
    ids = torch.arange(batch_size)
    make = cached_inputs if cached else inputs
    audio, text = make(criterion, batch_size, tokens)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = criterion(audio, text, ids, ids)
    # Not the tensor's method: a function mode is off within what it is asked about, and chunks run
    # their layers again in here.
    torch.autograd.backward(losses["loss"])
    optimizer.step()
    optimizer.zero_grad()
    criterion.on_optimizer_step()


def fill_queues(criterion: nn.Module) -> None:
    """Write every row once."""
    for queue in criterion.queues.values():
        ids = torch.zeros(queue.size, dtype=torch.int64)
        queue.enqueue(torch.rand(queue.size, queue.dim), ids, ids)


def count_step(
    name: str,
    model: RetrievalModelConfig,
    batch_size: int,
    queue_size: int,
    *,
    autocast: bool,
    cuda: bool = True,
    tokens: int = CAPTION_TOKENS,
    chunk_size: int | None = None,
    cached: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Step:
    """Count the second step of a run, by when AdamW's averages are there.

    Args:
        name: of the criterion.
        model: what it is built around.
        batch_size: pairs of 10 s and ``tokens`` tokens.
        queue_size: rows of each queue, all written.
        autocast: to bfloat16.
        cuda: take the memory of CUDA's kernels, and not of the CPU's.
        tokens: of a caption.
        chunk_size: of gradient caching.
        cached: outputs of frozen towers come in place of clips and captions.
        options: of the criterion, in place of ``queue_size``.
    """
    with torch.device("meta"):
        criterion = make_criterion(name, model, queue_size, options)
    use_chunks(criterion, chunk_size)
    with ExitStack() as stack:
        # BEATs keeps the tables of its features between calls, so they are made before, for real.
        fbank(torch.zeros(1, FRAME_LENGTH))
        # Those of its positions are counted, and must not be kept for a real model.
        stack.callback(distance_buckets.cache_clear)
        stack.enter_context(fake_tensors())
        live = stack.enter_context(LiveBytes())
        if cuda:
            stack.enter_context(CudaKernels())
        _make_fake(criterion)
        fill_queues(criterion)
        optimizer = AdamW(parameter_groups(criterion, 0.05, lr=1e-5))
        one_step(criterion, optimizer, batch_size, autocast, tokens, cached)
        live.peak = live.now
        one_step(criterion, optimizer, batch_size, autocast, tokens, cached)

    trained = [p for p in criterion.parameters() if p.requires_grad]
    states = [x for state in optimizer.state.values() for x in state.values()]
    parts = {
        "weights": bytes_of([*criterion.model.parameters(), criterion.temperature]),
        "momentum": bytes_of([
            p for n, p in criterion.named_parameters() if n.startswith(("audio_m.", "text_m."))
        ]),
        "queues": bytes_of([b for q in criterion.queues.values() for b in q.buffers()]),
        "gradients": bytes_of(trained),
        "optimizer": bytes_of(states),
    }  # fmt: skip
    # The gradients are not there yet when the activations are the most.
    there = sum(parts.values()) - parts["gradients"]
    towers = (criterion.model.audio, criterion.model.text)
    return Step(
        **parts,
        activations=live.peak - there,
        peak=live.peak,
        largest_part=max(bytes_of(list(tower.parameters())) for tower in towers),
    )


def _make_fake(module: nn.Module) -> None:
    """Give every parameter and buffer on the meta device a fake storage on the CPU; what two
    modules share stays one."""
    made: dict[int, Tensor] = {}

    def fake(x: Tensor) -> Tensor:
        if id(x) not in made:
            made[id(x)] = torch.empty(x.shape, dtype=x.dtype)
            if isinstance(x, nn.Parameter):
                made[id(x)] = nn.Parameter(made[id(x)], x.requires_grad)
            kept.append(x)  # or another tensor could get its id
        return made[id(x)]

    kept: list[Tensor] = []
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            setattr(part, name, fake(p))
        for name, b in list(part.named_buffers(recurse=False)):
            setattr(part, name, fake(b))


def halfway(options: Mapping[str, Any] | None = None) -> RetrievalModelConfig:
    """:data:`HALFWAY` with other options, which are merged into it."""

    def merged(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
        both = {
            key: merged(one[key], two[key]) if isinstance(one[key], Mapping) else two[key]
            for key in one.keys() & two.keys()
        }
        return {**one, **two, **both}

    return build_config(RetrievalModelConfig, merged(HALFWAY, options or {}), "model")


def real_step(
    name: str,
    batch_size: int,
    queue_size: int,
    options: Mapping[str, Any] | None = None,
    chunk_size: int | None = None,
    cached: bool = False,
) -> int:
    """Bytes that the second step of :func:`halfway` takes at its peak on this CPU, by the resident
    set; call it in a process of its own, on Linux."""
    model = halfway(options)
    small = make_criterion(name, model, 8)
    fill_queues(small)
    trained = [p for p in small.parameters() if p.requires_grad]
    one_step(small, AdamW(trained), 2, False, 4, cached)  # libraries load what they need
    del trained
    before = resident("VmRSS")
    bound = weakref.finalize(small, int)
    del small
    assert not bound.alive
    freed = before - resident("VmRSS")
    criterion = make_criterion(name, model, queue_size)
    use_chunks(criterion, chunk_size)
    fill_queues(criterion)
    optimizer = AdamW(parameter_groups(criterion, 0.05, lr=1e-5))
    one_step(criterion, optimizer, batch_size, False, CAPTION_TOKENS, cached)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    one_step(criterion, optimizer, batch_size, False, CAPTION_TOKENS, cached)
    return resident("VmHWM") - (before - freed)


def resident(key: str) -> int:
    """A size from this process's status, such as ``VmRSS``, in bytes; on Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}; the check needs Linux.")


def measurable() -> dict[str, str]:
    """The environment of a process whose resident set is measured: in one thread, and so that
    glibc gives back to the system at once what is freed."""
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def check(batch_sizes: Sequence[int]) -> str:
    """The count beside what a real step takes, as a table."""
    rows = []
    for name in ("atc", "moco_atc", "moco_atc_atm"):
        for batch_size in batch_sizes:
            size = 16_384
            counted = count_step(name, halfway(), batch_size, size, autocast=False, cuda=False).peak
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", "--real", name, str(batch_size),
                 str(size)],
                check=True, capture_output=True, text=True,
                env=measurable(),
            )  # fmt: skip
            real = int(run.stdout)
            rows.append([
                name, str(batch_size), f"{counted / 2**20:,.0f}", f"{real / 2**20:,.0f}",
                f"{100 * (counted / real - 1):+.1f} %",
            ])  # fmt: skip
    header = ["criterion", "batch", "counted MiB", "real MiB", "error"]
    return Table(header, rows).markdown()


def table(batch_sizes: Sequence[int], queue_sizes: Sequence[int], autocast: bool) -> str:
    """The paper's models by criterion, batch size and queue size, in GiB a process."""
    model, rows = RetrievalModelConfig(), []
    for name in ("atc", "moco_atc", "moco_atc_atm"):
        for queue_size in queue_sizes if name != "atc" else (0,):
            for batch_size in batch_sizes:
                step = count_step(name, model, batch_size, queue_size, autocast=autocast)
                kept = (step.weights, step.momentum, step.optimizer, step.gradients, step.queues)
                shown = (*kept, step.activations, step.peak, step.ddp, step.fsdp(8))
                sizes = [f"{x / GIB:.2f}" for x in shown[:5]] + [
                    f"{x / GIB:.1f}" for x in shown[5:]
                ]
                rows.append([name, f"{queue_size:,}", str(batch_size), *sizes])
    header = [
        "criterion", "queue", "batch", "weights", "momentum", "AdamW", "gradients", "queues",
        "activations", "one process", "DDP", "FSDP2 over 8",
    ]  # fmt: skip
    return Table(header, rows).markdown()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--queue-sizes", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--check", action="store_true", help="compare with real steps on this CPU")
    parser.add_argument("--real", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.real:
        name, batch_size, queue_size = args.real
        print(real_step(name, int(batch_size), int(queue_size)))
        return
    if args.check:
        print(check([4, 8]))
        return
    for autocast, title in ((False, "float32"), (True, "bfloat16 autocast")):
        print(f"{title}, GiB a process:\n")
        print(table(args.batch_sizes, args.queue_sizes, autocast), end="\n\n")


if __name__ == "__main__":
    main()
