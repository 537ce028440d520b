"""What a plan is made from: sizes of the data, the model and the machine, found or measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from atr_moco_plugin.data.dataset import AudioTextDataset


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One encoder.

    Attributes:
        parameters: number of its weights.
        layers: number of its layers, 0 where it names none.
        pretrained: whether its weights come from an earlier training.
        bytes_each: what a training step keeps of one item, a clip or a caption, for the backward
            pass through all layers; 0 where it was not measured.
        seconds_each: time of a forward pass of one item; 0 where it was not measured.
    """

    parameters: int
    layers: int = 0
    pretrained: bool = False
    bytes_each: int = 0
    seconds_each: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What :func:`~atr_moco_plugin.finetuning.plan.make_plan` chooses from.

    Attributes:
        clips: clips to train on.
        captions: their captions.
        distinct_captions: different ones among them; wordings of one class are one.
        valid_clips: clips to validate on.
        long_clip: seconds that nine in ten clips do not exceed; ``None`` where it is unknown.
        window_seconds: longest clip that the start was trained for; ``None`` where it says none.
        measured_seconds: length of the clip that was measured.
        measured_tokens: length of the caption that was measured, a long one of the data.
        match_bytes: what a step of a criterion that matches keeps besides for one pair of a batch;
            0 where it was not measured.
        match_seconds: time of these forward passes.
        audio: the audio encoder.
        text: the text encoder.
        other_parameters: weights of projections, pooling and head.
        together: whether the two encoders were trained together.
        matches: whether there is a matching head.
        head_trained: whether it was trained.
        keeps: whether outputs of frozen encoders can be kept between epochs.
        device: where the training runs.
        memory: free bytes there; 0 where that is unknown.
        processes: that train together.
    """

    clips: int
    captions: int
    distinct_captions: int
    audio: PartFacts
    text: PartFacts
    valid_clips: int = 0
    long_clip: float | None = None
    window_seconds: float | None = None
    measured_seconds: float = 0.0
    measured_tokens: int = 0
    match_bytes: int = 0
    match_seconds: float = 0.0
    other_parameters: int = 0
    together: bool = False
    matches: bool = True
    head_trained: bool = False
    keeps: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    memory: int = 0
    processes: int = 1

    def part(self, name: str) -> PartFacts:
        """The encoder ``audio`` or ``text``."""
        return self.audio if name == "audio" else self.text

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        return self.audio.parameters + self.text.parameters + self.other_parameters


def data_facts(
    data: AudioTextDataset, train: str = "train", valid: str = "valid"
) -> dict[str, Any]:
    """The fields of :class:`Facts` about the data.

    Args:
        data: the open data set.
        train: the split to train on.
        valid: the split to validate on, which need not be there.

    Raises:
        InputError: if there is no split to train on.
    """
    clips = data.clips(train)
    return {
        "clips": len(clips),
        "captions": sum(len(clip.captions) for clip in clips),
        "distinct_captions": len({number for clip in clips for number in clip.caption_ids}),
        "valid_clips": len(data.splits.get(valid, ())),
        "long_clip": _long_clip(data, train),
    }


def _long_clip(data: AudioTextDataset, split: str) -> float | None:
    """Seconds that nine in ten clips do not exceed; the mean where single lengths are unknown."""
    clips = data.clips(split)
    lengths = [clip.seconds for clip in clips if clip.seconds is not None]
    if lengths:
        return float(np.quantile(lengths, 0.9))
    counted = data.counts.get(split)
    if counted is None or counted.seconds is None:
        return None
    return counted.seconds / len(clips)


def machine_facts(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """The fields of :class:`Facts` about the machine.

    Args:
        device: where the training runs.
        processes: that train together; those without a GPU share the memory.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = free_ram() // processes
    return {
        "device": "cuda" if device.type == "cuda" else "cpu",
        "memory": int(free),
        "processes": processes,
    }


def free_ram() -> int:
    """Bytes that processes can still take, within the limit of a container where there is one; 0
    where the system does not say."""
    found = []
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":", 1) for line in file)
        found.append(int(sizes["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            most = file.read().strip()
        with open("/sys/fs/cgroup/memory.current") as file:
            found.append(max(0, int(most) - int(file.read())))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(found, default=0)


def measured(run: Callable[[], object], weights: Iterable[Tensor]) -> tuple[int, float]:
    """Bytes that the backward pass of a call would need beside the weights, and the seconds that
    the call takes.

    Args:
        run: computes something that requires gradients.
        weights: parameters, which are there anyway.
    """
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng([]):
        with torch.no_grad():
            run()  # the first call makes what later ones share
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.enable_grad():
            start = time.perf_counter()
            kept = run()
            seconds = time.perf_counter() - start
    del kept
    return sum(sizes.values()), seconds
