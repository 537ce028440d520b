"""What a step costs: seconds of one thread, all variants in turns, and memory, which is counted.

Seconds are those of the processor for a step on real batches that are ready in memory: reading,
validation and saving are left out. Of a criterion whose matching loss begins late there are two
prices, before and after.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.optim import AdamW

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import MocoAtc
from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.data import AudioReader, PairLoader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.model import RetrievalModelConfig, build_model, freeze_encoder
from atr_moco_plugin.text.caption_tokenizer import caption_tokenizer
from atr_moco_plugin.text.tokenizer import tokenize
from benchmarks import memory
from benchmarks.negatives.variants import Variant
from benchmarks.step import fill, one_step

Step = Callable[[], Any]

_NEVER = 10**9


@dataclass(frozen=True)
class Price:
    """Of a step.

    Attributes:
        seconds: of the processor; of a matching criterion, of a step with its loss.
        waiting: seconds before the matching loss has begun; None where that is never.
    """

    seconds: float
    waiting: float | None = None

    def spent(self, steps: int, start: int) -> float:
        """Seconds of a run whose matching loss began after ``start`` steps."""
        waited = min(start, steps) if self.waiting is not None else 0
        return waited * (self.waiting or 0.0) + (steps - waited) * self.seconds

    def steps(self, budget: float, start: int, share: float = 0.0) -> float:
        """Steps that take a budget of seconds, where the matching loss begins after ``start``, but
        not before this share of the steps."""
        if self.waiting is None:
            return budget / self.seconds
        earliest = budget / (share * self.waiting + (1 - share) * self.seconds)
        if start <= share * earliest:
            return earliest
        waited = min(float(start), budget / self.waiting)
        return waited + (budget - waited * self.waiting) / self.seconds

    def scaled(self, factor: float) -> Price:
        """The same where every step takes ``factor`` times as long."""
        waiting = None if self.waiting is None else self.waiting * factor
        return replace(self, seconds=self.seconds * factor, waiting=waiting)

    def record(self) -> dict[str, float | None]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Workshop:
    """What steps are made of.

    Attributes:
        model: the recipe's.
        dataset: open, at the model's rate.
        max_seconds: of a clip.
        tokenizer_name: None trains one.
        max_tokens: of a caption.
        freeze: of the text encoder.
    """

    model: RetrievalModelConfig
    dataset: AudioTextDataset
    max_seconds: float
    tokenizer_name: str | None = None
    max_tokens: int = 48
    freeze: str = "none"

    def batches(self, size: int, number: int) -> list[dict[str, Any]]:
        """The first training batches, as the arguments of a criterion."""
        model = build_model(self.model)
        self.dataset.read_with(AudioReader(model.sample_rate))
        tokenizer = caption_tokenizer(
            model.text.encoder, self.dataset, ["train"], name=self.tokenizer_name, vocab_size=512,
            max_tokens=self.max_tokens, allow_unknown=False, note=lambda _: None,
        )  # fmt: skip
        loader = PairLoader(
            self.dataset, "train", partial(tokenize, tokenizer, max_tokens=self.max_tokens), size,
            max_seconds=self.max_seconds, shuffle=True, seed=0, drop_last=True,
        )  # fmt: skip
        made = []
        while len(made) < number:
            for batch in loader:
                made.append({
                    "audio": batch.audio, "text": batch.text,
                    "clip_ids": batch.clip_ids, "caption_ids": batch.caption_ids,
                })  # fmt: skip
                if len(made) == number:
                    break
        return made

    def step(
        self, variant: Variant, options: dict[str, Any], size: int, batches: list[dict[str, Any]]
    ) -> Step:
        """What makes the next training step, over and over the same batches."""
        torch.manual_seed(0)
        model = build_model(self.model)
        if self.freeze != "none":
            freeze_encoder(model.text, self.freeze)
        config = build_config(variant.kind.config_class, options, "criterion.config")
        criterion = variant.kind(model, config).train()
        criterion.total_steps = 1_000  # some schedules are over the whole run
        if variant.chunks:
            use_chunks(criterion, size)
        if isinstance(criterion, MocoAtc) and criterion.queues and criterion.audio_queue.size:
            fill(criterion, batches[0])
        trained = [p for p in criterion.parameters() if p.requires_grad]
        optimizer = AdamW(trained, lr=1e-6, fused=True)
        endless = _again(batches)
        return lambda: one_step(criterion, optimizer, next(endless))


def _again(batches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    while True:
        yield from batches


def measure(
    workshop: Workshop, variants: Sequence[tuple[Variant, dict[str, Any]]], size: int, rounds: int
) -> dict[str, Price]:
    """Prices of variants, measured in turns in this process.

    Args:
        workshop: model and data.
        variants: each with its options.
        size: pairs in a batch.
        rounds: in which each makes a step for every one of ``atm_every``.
    """
    plain, large = workshop.batches(size, 2), None
    steps: dict[tuple[str, bool], tuple[Step, int]] = {}
    for variant, options in variants:
        batches = plain
        if variant.chunks:
            large = large or workshop.batches(variant.pairs(size), 2)
            batches = large
        options = {x: y for x, y in options.items() if "warmup" not in x}
        for waits, own in _stages(variant, options).items():
            made = workshop.step(variant, own, size, batches)
            steps[variant.name, waits] = made, 1 if waits else int(options.get("atm_every", 1))
    seconds = _in_turns(
        [step for step, _ in steps.values()], [n for _, n in steps.values()], rounds
    )
    found = dict(zip(steps, seconds, strict=True))
    del steps
    gc.collect()
    return {
        variant.name: Price(found[variant.name, False], found.get((variant.name, True)))
        for variant, _ in variants
    }


def _stages(variant: Variant, options: dict[str, Any]) -> dict[bool, dict[str, Any]]:
    """Options of a criterion in its steps with the matching loss, and where it has others, in those
    before it."""
    if not starts_late(variant, options):
        return {False: options}
    return {False: {**options, "atm_start": 0}, True: {**options, "atm_start": _NEVER}}


def starts_late(variant: Variant, options: dict[str, Any]) -> bool:
    """Whether there are steps before the matching loss begins."""
    known = {x.name for x in fields(variant.kind.config_class)}
    return "atm_start" in known and options.get("atm_start") != 0


def _in_turns(steps: Sequence[Step], repeats: Sequence[int], rounds: int) -> list[float]:
    """Median seconds of the processor of each step; the mean of ``repeats`` of them is one."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for own, step, number in zip(times, steps, repeats, strict=True):
            start = time.process_time()
            for _ in range(number):
                step()
            if turn:  # the first allocates
                own.append((time.process_time() - start) / number)
    return [statistics.median(x) for x in times]


def count_memory(variant: Variant, options: dict[str, Any], size: int) -> float | None:
    """MiB of a step of the paper's models with ``size`` pairs, as :mod:`benchmarks.memory` counts
    them in float32; None where a criterion cannot be counted."""
    options = {x: y for x, y in _stages(variant, options)[False].items() if x != "atm_every"}
    chunk_size = size if variant.chunks else None
    try:
        step = memory.count_step(
            variant.criterion, RetrievalModelConfig(), variant.pairs(size), 0,
            autocast=False, chunk_size=chunk_size, options=options,
        )  # fmt: skip
    except DynamicOutputShapeException:
        # `sogclr` chooses rows by their values, which tensors without data do not have.
        return None
    return step.peak / 2**20
