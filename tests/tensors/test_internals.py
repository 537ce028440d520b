"""The private names of PyTorch that the package uses still mean what it takes them to mean.

Where one of these tests fails, a release of PyTorch has moved something. All such names are in
``atr_moco_plugin/tensors/internals.py``. Find the new name in PyTorch's source, change that one
function, and leave the test as it is. The comment in each test says what goes wrong otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from gloo import process_group
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations

from atr_moco_plugin.tensors import internals


def test_names_of_wrapped_parameters() -> None:
    # Momentum copies would find other names than the online model has.
    wrapped = nn.Sequential(checkpoint_wrapper(nn.Linear(1, 1)), torch.compile(nn.Linear(1, 1)))
    names = [internals.unwrapped_name(name) for name, _ in wrapped.named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_interpolation_of_many_tensors() -> None:
    # The momentum copies are moved with it.
    averages, targets = [torch.zeros(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]
    internals.lerp_all_(averages, targets, 0.25)
    assert [x.tolist() for x in averages] == [[0.25] * 2, [0.75] * 3]


def test_writes_are_counted() -> None:
    # A loop that forgets `attach` would not be warned.
    x = torch.zeros(2)
    before = internals.write_count(x)
    x.add_(1)
    assert internals.write_count(x) > before


def test_ddp_leaves_buffers_alone(tmp_path: Path) -> None:
    # DDP would send both queues before each forward pass.
    module = nn.BatchNorm1d(2)
    internals.exclude_from_ddp_broadcast(module, ["running_mean"])
    with process_group(0, 1, tmp_path):
        sent = DistributedDataParallel(module).modules_buffers
    assert not dist.is_initialized()
    assert len(sent) == 2 and all(x is not module.running_mean for x in sent)


def test_shared_memory() -> None:
    # A loader's worker would copy each batch once more.
    x = internals.empty_shared(2, 3)
    assert x.shape == (2, 3) and x.dtype == torch.float32 and x.is_shared()


def test_weight_norms_are_recognized() -> None:
    # Their gains would be weight-decayed.
    parametrized = parametrizations.weight_norm(nn.Linear(2, 2))
    orthogonal = parametrizations.orthogonal(nn.Linear(2, 2))
    assert internals.is_weight_norm(parametrized.parametrizations.weight)
    assert not internals.is_weight_norm(orthogonal.parametrizations.weight)
    assert not internals.is_weight_norm(nn.Linear(2, 2))


def test_the_compiler_is_not_imported_and_its_limit_can_be_raised() -> None:
    # Every run would wait for the compiler; or compiled layers would stop being compiled.
    script = (
        "from atr_moco_plugin.tensors import internals\n"
        "assert not internals.compiler_is_imported()\n"
        "import torch._dynamo\n"
        "assert internals.compiler_is_imported()\n"
        "internals.allow_recompilations(10_000)\n"
        "assert torch._dynamo.config.recompile_limit == 10_000\n"
        "internals.allow_recompilations(1)\n"
        "assert torch._dynamo.config.recompile_limit == 10_000\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
