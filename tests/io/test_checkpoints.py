"""What is found wrong with files of saved tensors, and what is not."""

from __future__ import annotations

import os
import random
from collections import Counter, OrderedDict, deque
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import DamagedFileError, problem_with

DAMAGED = ("is half-written or damaged", "is damaged:")


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
@pytest.mark.parametrize("zipped", [True, False])
def test_what_hosts_save_is_sound(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(SOUND[name], tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert problem_with(tmp_path / "x.pt") is None


class Scaled(torch.Tensor):
    """A tensor subclass that stands for what 8-bit optimizers keep."""

    @staticmethod
    def __new__(cls, codes: torch.Tensor, scale: torch.Tensor) -> Scaled:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor) -> None:
        self.codes, self.scale = codes, scale

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        return Scaled, (self.codes, self.scale)

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise NotImplementedError(function)


def scaled() -> Scaled:
    return Scaled(torch.arange(4, dtype=torch.uint8), torch.ones(1))


# What a plugin may keep in its state. None of it runs code.
READ: dict[str, Any] = {
    "set": {1, 2},
    "counter": Counter("ab"),
    "complex": 1j,
    "sparse": torch.eye(2).to_sparse(),
    "sparse rows": torch.eye(2).to_sparse_csr(),
    "buffer": nn.Buffer(torch.ones(2)),
    "quantised": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    "eight bits": torch.ones(2).to(torch.float8_e4m3fn),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "bytes": b"a\xff",
    "numpy scalar": np.float64(2.5),
}
REFUSED: dict[str, tuple[Any, str, Any]] = {
    "deque": (deque([1]), "collections.deque", None),  # torch fills no list but `list`
    "frozenset": (frozenset([1]), "frozenset", frozenset),
    "path": (PurePosixPath("a"), f"{PurePosixPath.__module__}.PurePosixPath", PurePosixPath),
    "datetime": (datetime(2024, 5, 1), "datetime.datetime", datetime),
    "slice": (slice(1, 2), "slice", slice),
    "tensor subclass": (scaled(), "test_checkpoints.Scaled", Scaled),
}


@pytest.mark.parametrize("name", READ)
def test_what_torch_reads_is_sound(tmp_path: Path, name: str) -> None:
    torch.save({"state": READ[name], "step": 1}, tmp_path / "x.pt")
    assert problem_with(tmp_path / "x.pt") is None


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_refuses_is_named_with_the_remedy_and_is_no_damage(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    value, called, kind = REFUSED[name]
    file = tmp_path / "x.pt"
    torch.save({"state": value}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as error:
        problem_with(file)
    said = str(error.value)
    assert str(file) in said and f"{called}`" in said and "add_safe_globals" in said
    assert "damaged" not in said and not isinstance(error.value, DamagedFileError)
    # The remedy is one.
    if kind is None:
        torch.save({"state": list(value)}, file, _use_new_zipfile_serialization=zipped)
    with torch.serialization.safe_globals([kind] if kind else []):
        assert problem_with(file) is None


def test_what_was_allowed_before_stays_allowed(tmp_path: Path) -> None:
    torch.save({"a": np.float64(1)}, tmp_path / "x.pt")
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([np.dtype, Scaled]):
        assert problem_with(tmp_path / "x.pt") is None
        assert {np.dtype, Scaled} <= set(torch.serialization.get_safe_globals())
    assert set(torch.serialization.get_safe_globals()) == set(before) - {np.dtype, Scaled}


def test_a_shard_of_fsdp_is_sound_without_process_groups(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        torch.save({"a": distribute_tensor(torch.ones(4), mesh, [Shard(0)])}, tmp_path / "x.pt")
    finally:
        dist.destroy_process_group()
    assert problem_with(tmp_path / "x.pt") is None


@pytest.mark.parametrize("zipped", [True, False])
def test_another_pickle_protocol_is_no_damage(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2)}, file, pickle_protocol=5, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="pickle protocol 2") as error:
        problem_with(file)
    assert not isinstance(error.value, DamagedFileError)


def test_a_cut_file_in_the_old_format_is_damaged_wherever_it_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"a": torch.ones(20)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    for size in range(0, len(data), 3):
        file.write_bytes(data[:size])
        assert problem_with(file) == "is half-written or damaged", size


def test_a_file_without_access_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        problem_with(tmp_path / "x.pt")


class Foreign:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch trap",)


@pytest.mark.parametrize("protocol", [2, 5])
def test_an_object_that_is_no_tensor_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2), "b": [Foreign()]}, "x.pt", pickle_protocol=protocol)
    with pytest.raises(InputError, match="posix.system" if protocol == 2 else "protocol 2"):
        problem_with(Path("x.pt"))
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
