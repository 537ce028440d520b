"""What is found wrong with files of saved tensors, and what is not."""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from atr_moco_plugin.checkpoints import problem_with

DAMAGED = ("is half-written or damaged", "is damaged:", "is not a file", "names the Python object")


def optimizer_state() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


SOUND: dict[str, Any] = {
    "tensors": OrderedDict(a=torch.ones(3), b=torch.arange(2), c=torch.zeros(1, dtype=torch.bool)),
    "low precision": {"a": torch.ones(2).bfloat16(), "b": torch.ones(2).half()},
    "parameter": {"a": nn.Parameter(torch.ones(2))},
    "optimizer": optimizer_state(),
    # As transformers saves them beside a checkpoint.
    "random states": {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    },
    "plain values": {"step": 3, "names": ["a", ("b", 2.5)], "none": None, "size": torch.Size([2])},
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("protocol", [2, 5])
def test_what_hosts_save_is_sound(tmp_path: Path, name: str, protocol: int) -> None:
    torch.save(SOUND[name], tmp_path / "x.pt", pickle_protocol=protocol)
    assert problem_with(tmp_path / "x.pt") is None


class Foreign:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch trap",)


@pytest.mark.parametrize("protocol", [2, 5])
def test_an_object_that_is_no_tensor_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2), "b": [Foreign()]}, "x.pt", pickle_protocol=protocol)
    assert "names the Python object `posix.system`" in str(problem_with(Path("x.pt")))
    assert not Path("trap").exists()
    torch.load("x.pt", weights_only=False)
    assert Path("trap").exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_tensor_is_found(tmp_path: Path, position: float, bit: int) -> None:
    values = torch.arange(1000.0)
    torch.save({"a": values}, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    start = data.index(values.numpy().tobytes()[:64])
    data[start + int(position * 4000)] ^= 1 << bit
    (tmp_path / "x.pt").write_bytes(data)
    assert "does not have its checksum" in str(problem_with(tmp_path / "x.pt"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True), name=st.sampled_from(["x.pt", "x.safetensors"]))
def test_a_cut_file_is_found(tmp_path: Path, part: float, name: str) -> None:
    save = save_file if name.endswith("safetensors") else torch.save
    save({"a": torch.arange(500.0)}, tmp_path / name)
    assert problem_with(tmp_path / name) is None
    os.truncate(tmp_path / name, int(part * (tmp_path / name).stat().st_size))
    assert str(problem_with(tmp_path / name)).startswith(DAMAGED)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(["x.pt", "x.safetensors"]))
def test_any_bytes_are_answered(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert str(problem_with(tmp_path / name)).startswith(DAMAGED)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problem_with(tmp_path / "x.pt") == problem_with(tmp_path) == "is missing"
