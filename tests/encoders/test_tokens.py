"""Token sequences: masks and rows."""

from __future__ import annotations

import torch
from fake_cuda import CUDA, fake_cuda

from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_rows, take_tokens, valid_first


def test_the_first_tokens_are_valid() -> None:
    mask = valid_first(torch.tensor([2, 0, 3]), 3)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_rows_are_taken_of_all_that_is_there() -> None:
    rows = torch.tensor([1, 1, 0])
    ids, mask = torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.bool)
    states, *others = take_tokens(TextTokens(None, mask, ids), rows)
    assert states is None and others[1].tolist() == [[3, 4, 5], [3, 4, 5], [0, 1, 2]]
    audio = take_tokens(AudioTokens(torch.randn(2, 3, 4), mask), rows)
    assert audio.states.shape == (3, 3, 4)


def test_gradients_of_repeated_rows_are_added_in_one_order() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 2_000, generator=generator, requires_grad=True)
    rows = torch.randint(0, 24, (96,), generator=generator)
    weights = torch.randn(96, 2_000, generator=generator) * 10.0 ** torch.arange(-4, 4).repeat(250)
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            found.append(torch.autograd.grad((take_rows(x, rows) * weights).sum(), x)[0])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_the_way_is_that_of_the_device(monkeypatch) -> None:
    seen = []
    for device in ("cpu", CUDA):
        with fake_cuda(monkeypatch):
            x, rows = (
                torch.ones(3, 2, device=device),
                torch.zeros(5, dtype=torch.int64, device=device),
            )
            with Operations() as operations:
                assert take_rows(x, rows).shape == (5, 2)
        seen.append(operations.names)
    assert seen == [["aten::index_select"], ["aten::index"]]


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name.startswith("aten::index"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))
