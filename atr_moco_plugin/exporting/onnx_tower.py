"""One tower as an ONNX file, compared with the model by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting.traced import PlainAttention

OUTPUT = "embedding"
"""Name of the output of both files: ``[B, d]`` float32, unit-norm."""

TOLERANCE = 1e-4
"""Largest difference of an embedding's entry from the model's."""

_LARGEST = 1_800_000_000  # bytes of weights in one file; protobuf ends at 2 GiB


@dataclass(frozen=True)
class Tower:
    """One of the two files.

    Attributes:
        name: ``audio`` or ``text``.
        module: what is traced.
        batches: inputs by name, of several sizes; the first one is traced, all are compared.
        expected: the model's embeddings of each batch.
    """

    name: str
    module: nn.Module
    batches: Sequence[Mapping[str, Tensor]]
    expected: Sequence[Tensor]


def write_tower(tower: Tower, file: Path) -> dict[str, Any]:
    """Trace a tower, write its file and compare it.

    Returns:
        What ``config.json`` says of the file.

    Raises:
        InputError: if onnxruntime's embeddings differ from the model's.
        Exception: whatever a tracer raises.
    """
    names = list(tower.batches[0])
    example = tuple(tower.batches[0][name] for name in names)
    shapes = {name: _shape(name, [batch[name] for batch in tower.batches]) for name in names}
    dynamic = tuple(
        {i: size for i, size in enumerate(shapes[name]) if isinstance(size, str)} for name in names
    )
    with PlainAttention():
        program = torch.onnx.export(
            tower.module,
            example,
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_shapes=dynamic,
        )
    assert program is not None  # what `dynamo=True` returns
    size = sum(x.numel() * x.element_size() for x in tower.module.state_dict().values())
    program.save(str(file), external_data=size > _LARGEST)
    return {
        "file": file.name,
        "inputs": {
            name: {
                "dtype": str(tower.batches[0][name].dtype).removeprefix("torch."),
                "shape": shapes[name],
            }
            for name in names
        },
        "output": OUTPUT,
        "greatest_difference": _compared(tower, file),
    }


def _shape(name: str, examples: Sequence[Tensor]) -> list[int | str]:
    """Sizes of an input, those that differ between examples by their names."""
    names = {0: "batch", 1: "samples" if name == "waveforms" else "length"}
    return [
        names.get(i, f"length_{i}") if len(set(sizes)) > 1 else sizes[0]
        for i, sizes in enumerate(zip(*(x.shape for x in examples), strict=True))
    ]


def _compared(tower: Tower, file: Path) -> float:
    """The greatest difference between the file's embeddings and the model's.

    Raises:
        InputError: if it is above :data:`TOLERANCE`.
    """
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    greatest = 0.0
    for batch, expected in zip(tower.batches, tower.expected, strict=True):
        found: NDArray[np.float32]
        (found,) = session.run([OUTPUT], {name: x.numpy() for name, x in batch.items()})
        difference = float(np.abs(found - expected.numpy()).max())
        # NaN is no difference that is small enough.
        if not difference <= TOLERANCE:
            raise InputError(
                f"onnxruntime's embeddings differ by {difference:.1e}, more than {TOLERANCE:g}"
            )
        greatest = max(greatest, difference)
    return greatest


@contextmanager
def quiet() -> Iterator[None]:
    """Without the tracer's notes, on packages that it could use and shapes that it has guessed."""
    loggers = [logging.getLogger(x) for x in ("torch.onnx", "torch.fx", "torch.export")]
    levels = [x.level for x in loggers]
    try:
        # A trace that fails is printed whole.
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
