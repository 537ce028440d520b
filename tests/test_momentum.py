from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers.modeling_outputs import BaseModelOutput

from atr_moco_plugin.momentum import MomentumCopy


def online() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_follows_the_formula_for_every_parameter_and_copies_buffers() -> None:
    module = online()
    copy = MomentumCopy(module)
    expected = [p.detach().double() for p in module.parameters()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn(p.shape, generator=generator))
            module[1].running_mean.add_(1.0)
        copy.update(module, 0.9)
        expected = [
            0.9 * e + 0.1 * p.double() for e, p in zip(expected, module.parameters(), strict=False)
        ]
    for p, e in zip(copy.parameters(), expected, strict=False):
        torch.testing.assert_close(p.double(), e, atol=1e-6, rtol=1e-6)
    assert torch.equal(copy.module[1].running_mean, module[1].running_mean)


def test_keeps_its_storage() -> None:
    module = online()
    copy = MomentumCopy(module)
    before = [p.data_ptr() for p in copy.parameters()]
    copy.update(module, 0.5)
    assert before == [p.data_ptr() for p in copy.parameters()]


def test_bfloat16_weights_are_averaged_in_float32() -> None:
    module = nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        module.weight.fill_(1.0)
        copy = MomentumCopy(module)
        module.weight.fill_(1.1)
    for _ in range(2000):
        copy.update(module, 0.995)
    target = float(module.weight.detach())
    assert float(copy.module.weight) == pytest.approx(target, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_takes_the_input_of_an_online_module_in_another_dtype(dtype: torch.dtype) -> None:
    class Pooled(nn.Linear):
        def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            assert not x[1].is_floating_point()
            return super().forward(x[0])[x[1]]

    module = Pooled(3, 2).to(dtype)
    x = torch.ones(4, 3, dtype=dtype), torch.tensor([2])
    out = MomentumCopy(module)(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, module(x).float(), rtol=0.02, atol=0.02)


def test_hands_on_what_is_float32_as_it_is() -> None:
    class Given(nn.Module):
        def forward(self, x: object) -> object:
            return x

    copy = MomentumCopy(Given())
    output = BaseModelOutput(last_hidden_state=torch.ones(2, 3))
    assert copy(output) is output
    found = copy(BaseModelOutput(last_hidden_state=torch.ones(2, 3).double()))
    assert type(found) is BaseModelOutput and found.last_hidden_state.dtype == torch.float32
    assert copy([torch.ones(2).bfloat16(), "a"])[0].dtype == torch.float32


def test_stays_in_eval_mode_without_gradients() -> None:
    module = online()
    parent = nn.ModuleDict({"online": module, "copy": MomentumCopy(module)})
    parent.train()
    assert parent["online"].training
    assert not any(m.training for m in parent["copy"].modules())
    out = parent["copy"](torch.ones(3, 4, requires_grad=True))
    assert not out.requires_grad
    assert not any(p.requires_grad for p in parent["copy"].parameters())


def test_is_a_copy_with_its_own_weights() -> None:
    module = online()
    copy = MomentumCopy(module)
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert not torch.equal(copy.module[0].weight, module[0].weight)


def test_a_pass_looks_for_what_trains_again_only_where_a_copy_shares() -> None:
    looked: list[nn.Module] = []

    class Looked(nn.Linear):
        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            looked.append(self)
            return super().parameters(recurse)

    for module in (Looked(2, 2), Looked(2, 2).requires_grad_(False)):
        copy = MomentumCopy(module)
        looked.clear()
        copy.start(module)
        assert bool(looked) == (not module.weight.requires_grad)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(1))


def renamed(tower: Tower) -> None:
    tower.third = tower.second
    del tower.second


def appended(tower: Tower) -> None:
    tower.third = nn.Linear(4, 4)


def resized(tower: Tower) -> None:
    tower.second = nn.Linear(4, 5)


def buffered(tower: Tower) -> None:
    tower.register_buffer("offset", torch.zeros(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "new are third.weight, third.bias; missing are second.weight, second.bias. Ch"),
        (appended, "new are third.weight, third.bias. Change the model before"),
        (resized, r"of another shape are second.weight \[5, 4\] \(was \[4, 4\]\), second.bias"),
        (buffered, "new are offset"),
    ],
)
def test_a_tower_that_was_changed_is_named(change, message: str) -> None:
    tower = Tower()
    copy = MomentumCopy(tower)
    change(tower)
    before = [x.clone() for x in copy.state_dict().values()]
    with pytest.raises(ValueError, match=message):
        copy.update(tower, 0.5)
    assert all(torch.equal(x, y) for x, y in zip(copy.state_dict().values(), before, strict=True))


def test_wrappers_around_online_layers_are_no_difference() -> None:
    tower = Tower()
    copy = MomentumCopy(tower)
    tower.first = checkpoint_wrapper(tower.first)
    tower.second = torch.compile(tower.second, backend="eager")
    with torch.no_grad():
        for p in tower.parameters():
            p.add_(1.0)
    copy.update(tower, 0.0)
    assert torch.equal(copy.module.first.weight, tower.first.weight)
    assert torch.equal(copy.module.second.weight, tower.second.weight)
