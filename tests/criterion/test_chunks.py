"""Gradient caching: a batch in chunks trains as the whole batch does."""

from __future__ import annotations

import copy
import random
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_AUDIO, TINY_TEXT
from linear import LinearModel, LinearTower, linear_batch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    Dcl,
    DclConfig,
    MLtm,
    MLtmConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    Siglip,
    SiglipConfig,
    SogClr,
    SogClrConfig,
)
from atr_moco_plugin.criterion.chunks import encode, match_in_chunks, use_chunks
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens

CASES = {
    "atc": (Atc, AtcConfig(), "blip"),
    "dcl": (Dcl, DclConfig(), "blip"),
    "siglip": (Siglip, SiglipConfig(), "blip"),
    "sogclr": (SogClr, SogClrConfig(), "blip"),
    "m_ltm": (MLtm, MLtmConfig(), "blip"),
    "moco_atc": (MocoAtc, MocoAtcConfig(queue_size=10), "blip"),
    "moco_atc_atm": (MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=10), "blip"),
    "albef": (MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=10), "albef"),
}
DROPOUT = {
    "audio": {"name": "beats", "config": TINY_AUDIO | {"dropout": 0.3, "dropout_input": 0.3}},
    "text": {"name": "bert", "config": TINY_TEXT | {"hidden_dropout_prob": 0.3}},
}


def build(name: str, tiny_model: Any, **options: Any) -> Atc:
    criterion, config, fusion = CASES[name]
    found = criterion(tiny_model(fusion=fusion, **options), config).train()
    found.total_steps = 4
    return found


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 20])
@pytest.mark.parametrize("name", CASES)
def test_chunks_train_as_the_whole_batch(name, chunk_size, tiny_model, tiny_batch) -> None:
    whole = build(name, tiny_model)
    chunked = copy.deepcopy(whole)
    chunked.chunk_size = chunk_size
    for step in range(2):  # the second with a queue
        batch = tiny_batch(7, seed=step)
        batch["clip_ids"][1] = batch["clip_ids"][0]
        expected, found = whole(**batch), chunked(**batch)
        assert_close(found, expected, atol=1e-5, rtol=1e-5)
        (expected["loss"] / 2).backward()
        (found["loss"] / 2).backward()
    assert gradients(chunked).keys() == gradients(whole).keys()
    assert_close(gradients(chunked), gradients(whole), atol=1e-5, rtol=1e-5)
    for one in (whole, chunked):
        one.on_optimizer_step()
    assert_close(chunked.state_dict(), whole.state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["atc", "moco_atc"])
def test_with_dropout_a_chunk_has_one_random_state_in_both_passes(
    name, tiny_model, tiny_batch
) -> None:
    """The same as chunks that keep what their gradient needs, bit by bit."""
    criterion, batch = build(name, tiny_model, **DROPOUT), tiny_batch(6)
    chunks = [slice(0, 4), slice(4, 6)]

    def in_plain_chunks(tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return torch.cat([tower(**{k: v[rows] for k, v in inputs.items()})[0] for rows in chunks])

    torch.manual_seed(5)
    model = criterion.model
    expected = [in_plain_chunks(model.audio, batch["audio"])]
    expected.append(in_plain_chunks(model.text, batch["text"]))
    after = torch.rand(1)
    weights = [torch.randn(6, 12, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    sum((x * w).sum() for x, w in zip(expected, weights, strict=True)).backward()
    plain = gradients(criterion)
    criterion.zero_grad()

    torch.manual_seed(5)
    found = [encode(getattr(model, x), batch[x], 4).embeddings for x in ("audio", "text")]
    assert torch.equal(torch.rand(1), after)
    assert_close(found, expected, atol=0, rtol=0)
    state = torch.get_rng_state()
    sum((x * w).sum() for x, w in zip(found, weights, strict=True)).backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(gradients(criterion), plain, atol=1e-7, rtol=1e-6)


def test_autocast_reaches_the_second_pass(tiny_model, tiny_batch) -> None:
    whole, batch = build("moco_atc_atm", tiny_model), tiny_batch(6)
    chunked = copy.deepcopy(whole)
    chunked.chunk_size = 2
    for one in (whole, chunked):
        with torch.autocast("cpu", torch.bfloat16):
            loss = one(**batch)["loss"]
        loss.backward()
    # Of bfloat16, whose sums over chunks have another order.
    for name, expected in gradients(whole).items():
        assert (gradients(chunked)[name] - expected).norm() <= 0.05 * expected.norm() + 1e-4, name


def test_an_evaluation_pass_leaves_no_graph(tiny_model, tiny_batch) -> None:
    criterion = build("moco_atc_atm", tiny_model)
    criterion.chunk_size = 2
    batch = tiny_batch(5)
    with torch.no_grad():
        found = criterion.eval()(**batch)
        criterion.chunk_size = None
        assert_close(found, criterion(**batch), atol=1e-5, rtol=1e-5)
    assert not found["loss"].requires_grad


class Kept(TorchDispatchMode):
    """The most bytes of tensors that were made in it and are alive at once."""

    now = peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor._is_view():
                size = tensor.untyped_storage().nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(tensor, self.freed, size)
        return result

    def freed(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("name", ["atc", "moco_atc"])
def test_a_large_batch_takes_little_more_memory_than_its_chunk(
    name, tiny_model, tiny_batch
) -> None:
    def peak(b: int, chunk_size: int | None) -> int:
        criterion = build(name, tiny_model)
        criterion.chunk_size = chunk_size
        with Kept() as kept:
            criterion(**tiny_batch(b))["loss"].backward()
        return kept.peak

    assert peak(16, None) > 4 * peak(2, None)
    assert peak(16, 2) < 0.5 * peak(16, None)


def test_pairs_of_the_head_keep_their_order() -> None:
    text = TextTokens(torch.arange(5.0)[:, None, None], torch.ones(5, 1, dtype=torch.bool),
                      torch.zeros(5, 1, dtype=torch.int64))  # fmt: skip
    audio = AudioTokens(10 * torch.arange(5.0)[:, None, None], torch.ones(5, 1, dtype=torch.bool))
    row, hard_clip, hard_text = torch.tensor([[0, 1, 2, 3, 4], [3, 4, 0, 1, 2], [1, 2, 3, 4, 0]])
    text_rows = torch.cat([row, row, hard_text])
    audio_rows = torch.cat([row, hard_clip, row])
    seen = []

    def match(texts: TextTokens, clips: AudioTokens, rows: Tensor) -> Tensor:
        seen.append(len(clips.states))
        states = take_tokens(clips, rows).states
        return torch.cat([texts.states[:, 0], states[:, 0]], dim=1)

    found = match_in_chunks(match, text, audio, text_rows, audio_rows, items=5, chunk_size=2)
    assert torch.equal(found, torch.stack([text_rows, 10 * audio_rows], dim=1).float())
    assert seen == [4, 4, 2]


class Masked(LinearTower):
    """Draws what it masks with NumPy and Python, as speech encoders of transformers do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        mask = torch.from_numpy(np.random.rand(*x.shape) < 0.5)
        mask[random.randrange(len(x))] = False
        return super().forward(x.masked_fill(mask, 0.0))


def test_numpy_and_python_draw_the_same_in_both_passes() -> None:
    found, states = [], []
    for chunk_size in (None, 4):  # one chunk of the whole batch
        model = LinearModel()
        model.audio = Masked(of_text=False)
        model.audio.load_state_dict(LinearModel().audio.state_dict())
        criterion = Atc(model, AtcConfig()).train()
        criterion.chunk_size = chunk_size
        np.random.seed(3)
        random.seed(3)
        criterion(**linear_batch())["loss"].backward()
        found.append(gradients(criterion))
        states.append((np.random.rand(), random.random()))
    assert_close(found[1], found[0])
    assert states[0] == states[1]  # as after one pass


class Normed(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.norm = tower, nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        return self.tower(self.norm(x))


def test_a_batch_norm_is_refused_unless_it_stands_still() -> None:
    model = LinearModel()
    model.audio = Normed(model.audio)
    criterion = Atc(model, AtcConfig()).train()
    criterion.chunk_size = 2
    with pytest.raises(InputError, match=r"'audio\.norm' is a batch norm.*`chunk_size` out"):
        criterion(**linear_batch())
    model.audio.norm.eval()
    criterion(**linear_batch())["loss"].backward()


class OwnForward(Atc):
    """Inherits ``chunk_size`` and encodes the batch at once."""

    def forward(self, audio, text, clip_ids, caption_ids):
        a, u = self.model.audio(**audio)[0], self.model.text(**text)[0]
        return {"loss": (a - u).square().sum() / self.temperature.squeeze()}


class OwnForwardInChunks(Atc):
    """Says that its ``forward`` reads ``chunk_size``."""

    chunk_size = None

    def forward(self, *batch):
        return super().forward(*batch)


class OwnLoss(Atc):
    """Leaves ``forward`` as it is."""

    def _loss(self, a, u, batch):
        return (a - u).square().sum(), {}


def test_a_forward_that_does_not_read_the_chunks_is_refused() -> None:
    for kind in (OwnForwardInChunks, OwnLoss, MocoAtc):
        criterion = kind(LinearModel(), kind.config_class())
        use_chunks(criterion, 2)
        assert criterion.chunk_size == 2
    with pytest.raises(InputError, match="that of OwnForward is its own and inherits it: leave"):
        use_chunks(OwnForward(LinearModel(), AtcConfig()), 2)
    use_chunks(OwnForward(LinearModel(), AtcConfig()), None)
    criterion = OwnForward(LinearModel(), AtcConfig())
    criterion.chunk_size = 2  # as a plain loop sets it
    with pytest.raises(InputError, match="that of OwnForward is its own"):
        criterion.attach(torch.optim.SGD(criterion.parameters(), lr=0.1))


def test_what_cannot_be_cut_is_refused() -> None:
    criterion, batch = Atc(LinearModel(), AtcConfig()).train(), linear_batch()
    criterion.chunk_size = 0
    with pytest.raises(InputError, match="`chunk_size` of gradient caching is 0, expected 1"):
        criterion(**batch)
    criterion.chunk_size = 2
    with pytest.raises(InputError, match=r"no number of rows in common: x \(4\), other \(3\)"):
        criterion(**{**batch, "audio": {**batch["audio"], "other": torch.zeros(3)}})
    for lengths in ([1, 2, 5, 6], ("a", "b", "c", "d"), np.ones(4), {"in": [[0.5] * 4]}):
        with pytest.raises(InputError, match="lengths has 4 values that are no tensor"):
            criterion(**{**batch, "audio": {**batch["audio"], "lengths": lengths}})


def test_inputs_may_be_nested() -> None:
    class Nested(nn.Module):
        def forward(self, pair: tuple[Tensor, Any], name: str) -> tuple[Tensor, Any]:
            assert name == "clip"
            return pair[0] + pair[1]["more"][0], None

    x = torch.arange(10.0).view(5, 2)
    inputs = {"pair": (x, {"more": [x]}), "name": "clip"}
    assert torch.equal(encode(Nested(), inputs, 2).embeddings, 2 * x)
    rows = torch.tensor([0, 0, 4])

    class OfFive(Nested):
        def forward(self, rows: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Any]:
            assert rows is None
            return super().forward(**inputs)

    found = encode(OfFive(), {**inputs, "rows": rows}, 2).embeddings
    assert torch.equal(found, 2 * x[rows])


@pytest.mark.slow
def test_chunks_under_compile(tiny_model, tiny_batch) -> None:
    torch._dynamo.reset()
    plain = build("moco_atc_atm", tiny_model)
    criterion = copy.deepcopy(plain)
    criterion.chunk_size = 2
    compiled = torch.compile(criterion, backend="aot_eager")
    for step in range(2):
        batch = tiny_batch(4, seed=step)
        expected, found = plain(**batch), compiled(**batch)
        assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for losses in (expected, found):
            losses["loss"].backward()
    assert_close(gradients(criterion), gradients(plain), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()
