"""Items of two clips, and clips with several captions, in the criteria."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import LinearModel
from torch import Tensor
from torch.testing import assert_close

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
    atc_loss,
    positive_pairs,
)
from atr_moco_plugin.criterion.positives import MODES, check_shared_clips, join_ids
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue

KINDS = {
    "atc": (Atc, AtcConfig(positives="clip_or_caption")),
    "dcl": (Dcl, DclConfig()),
    "siglip": (Siglip, SiglipConfig()),
    "sogclr": (SogClr, SogClrConfig()),
    "m_ltm": (MLtm, MLtmConfig(positives="clip_or_caption")),
    "moco_atc": (MocoAtc, MocoAtcConfig(queue_size=9)),
    "moco_atc_atm": (MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=9)),
}


def items(seed: int, n: int, mixed: bool) -> list[list[tuple[int, int]]]:
    """Pairs of (clip, caption) of each item: one, or of a mixture two."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(4, (n, 2, 2), generator=generator).tolist()
    two = torch.rand(n, generator=generator) < 0.5
    return [
        [(x, y) for x, y in draw[: 1 + (mixed and bool(t))]]
        for draw, t in zip(draws, two, strict=True)
    ]


def tensors(of_items: list[list[tuple[int, int]]], mixed: bool) -> tuple[Tensor, Tensor]:
    if not mixed:
        return tuple(torch.tensor([x[0][i] for x in of_items]) for i in range(2))
    padded = [[*x, (-1, -1)][:2] for x in of_items]
    return tuple(torch.tensor([[y[i] for y in x] for x in padded]) for i in range(2))


@given(
    seed=st.integers(0, 999), n=st.integers(1, 6), m=st.integers(1, 6), mode=st.sampled_from(MODES),
    rows_mixed=st.booleans(), columns_mixed=st.booleans(),
)  # fmt: skip
def test_a_mixture_is_a_positive_of_whatever_a_part_is_one_of(
    seed: int, n: int, m: int, mode: Any, rows_mixed: bool, columns_mixed: bool
) -> None:
    rows, columns = items(seed, n, rows_mixed), items(seed + 1, m, columns_mixed)

    def related(a: tuple[int, int], b: tuple[int, int]) -> bool:
        same = a[0] == b[0], a[1] == b[1]
        return {"clip": same[0], "pair": all(same), "clip_or_caption": any(same)}[mode]

    expected = [[any(related(a, b) for a in x for b in y) for y in columns] for x in rows]
    found = positive_pairs(*tensors(rows, rows_mixed), *tensors(columns, columns_mixed), mode)
    assert found.tolist() == expected


@given(
    seed=st.integers(0, 999), n=st.integers(1, 6), m=st.integers(1, 6), mode=st.sampled_from(MODES),
)  # fmt: skip
def test_a_second_id_that_is_not_there_is_equal_to_none(
    seed: int, n: int, m: int, mode: Any
) -> None:
    """A mixture with one caption of its own was a positive of every item that is no mixture."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> Tensor:
        drawn = torch.randint(4, (2, count, 2), generator=generator)
        drawn[:, :, 1] -= torch.randint(5, (2, count), generator=generator)
        return drawn.clamp(min=-1)

    def related(row: list[list[int]], column: list[list[int]]) -> bool:
        found = []
        for clip, caption in zip(*row, strict=True):
            for other, text in zip(*column, strict=True):
                same = clip == other >= 0, caption == text >= 0
                found.append({"clip": same[0], "pair": all(same), "clip_or_caption": any(same)})
        return any(x[mode] for x in found)

    rows, columns = ids(n), ids(m)
    found = positive_pairs(*rows, *columns, mode)
    expected = [
        [related(rows[:, i].tolist(), columns[:, j].tolist()) for j in range(m)] for i in range(n)
    ]
    assert found.tolist() == expected
    assert torch.equal(found.T, positive_pairs(*columns, *rows, mode))
    assert positive_pairs(*rows, *rows, mode).diagonal().all()


def test_a_mixture_with_one_caption_trains() -> None:
    clips = torch.tensor([[1, 2], [3, -1], [4, -1], [5, -1]])
    captions = torch.tensor([[70, -1], [71, -1], [72, -1], [73, -1]])
    found = positive_pairs(clips, captions, clips, captions, "clip_or_caption")
    assert torch.equal(found, torch.eye(4, dtype=torch.bool))
    criterion = Atc(LinearModel(), AtcConfig(positives="clip_or_caption")).train()
    given = {**batch(0), "clip_ids": clips, "caption_ids": captions}
    plain = {**given, "clip_ids": clips[:, 0], "caption_ids": captions[:, 0]}
    assert_close(criterion(**given)["loss"], criterion(**plain)["loss"])


def test_ids_of_one_and_of_two_clips_join() -> None:
    one, two = torch.tensor([1, 2]), torch.tensor([[3, 4], [5, -1]])
    assert join_ids(one, one).tolist() == [1, 2, 1, 2]
    assert join_ids(two, one).tolist() == [[3, 4], [5, -1], [1, -1], [2, -1]]


def test_a_queue_keeps_both_ids_through_everything() -> None:
    queue = EmbeddingQueue(4, 2, max_size=8)
    queue.enqueue(torch.eye(2), torch.tensor([1, 2]), torch.tensor([10, 20]))
    assert [x.tolist() for x in queue.ids] == [[1, 2], [10, 20]]
    mixed = torch.tensor([[3, 4], [5, -1]])
    queue.enqueue(torch.eye(2), mixed, 10 * mixed.clamp(min=0) - (mixed < 0).long())
    expected = [[1, -1], [2, -1], [3, 4], [5, -1]]
    assert queue.ids[0].tolist() == expected
    assert queue.ids[1].tolist() == [[10, -1], [20, -1], [30, 40], [50, -1]]
    # A plain batch takes the place of rows with it, and NaN takes that of none.
    again = copy.deepcopy(queue)
    again.enqueue(torch.eye(3, 2), torch.tensor([6, 7, 8]), torch.tensor([60, 70, 80]))
    assert again.ids[0].tolist() == [[6, -1], [7, -1], [8, -1], [5, -1]]
    again = copy.deepcopy(queue)
    again.enqueue(torch.full((2, 2), torch.nan), mixed, mixed)
    assert again.ids[0].tolist() == expected and again.nonfinite_clip_ids.tolist() == [3, 5]
    queue.grow(8)
    assert queue.ids[0].tolist() == expected

    loaded = EmbeddingQueue(3, 2)
    loaded.load_state_dict(queue.state_dict())
    assert sorted(loaded.ids[0].tolist()) == sorted(expected[1:])
    state = queue.state_dict()
    del state["second_ids"]  # of before there were mixtures
    loaded.load_state_dict(state)
    assert sorted(loaded.ids[0].tolist()) == [2, 3, 5]
    queue.clear()
    assert queue.ids[0].shape == (0,) and (queue.second_ids == -1).all()


def batch(seed: int, b: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(2, b, 6, generator=generator)
    ids = torch.arange(b) + b * seed
    return {"audio": {"x": audio}, "text": {"x": text}, "clip_ids": ids, "caption_ids": ids}


@pytest.mark.parametrize("name", KINDS)
def test_items_without_a_second_clip_train_as_before(name: str) -> None:
    kind, config = KINDS[name]
    plain = kind(LinearModel(), config).train()
    plain.total_steps = 4
    wide = copy.deepcopy(plain)
    for seed in range(3):
        one = batch(seed)
        two = {
            k: torch.stack([one[k], torch.full((4,), -1)], 1) for k in ("clip_ids", "caption_ids")
        }
        expected, found = plain(**one), wide(**{**one, **two})
        assert_close(found, expected, atol=0, rtol=0)
        found["loss"].backward()


def test_a_mixture_in_the_queue_is_no_negative_of_its_parts(monkeypatch) -> None:
    kind, config = KINDS["moco_atc"]
    criterion = kind(LinearModel(), config).train()
    first = batch(0)
    mixed = torch.tensor([[0, 7], [1, -1], [2, -1], [3, -1]])
    criterion(**{**first, "clip_ids": mixed, "caption_ids": mixed})["loss"].backward()
    second = batch(1)  # of clips 4 to 7
    seen = []

    def look(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(args[6])
        return atc_loss(*args, **kwargs)

    monkeypatch.setattr("atr_moco_plugin.criterion.moco_atc.atc_loss", look)
    criterion(**second)
    (positives,) = seen
    expected = torch.eye(4, 8, dtype=torch.bool)
    expected[3, 4] = True  # clip 7 is a part of the first row of the queue
    assert torch.equal(positives, expected)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_clip_that_pairs_share_is_encoded_once(
    name: str, chunk_size: int | None, tiny_model: Any, tiny_batch: Any
) -> None:
    kind, config = KINDS[name]
    whole = kind(tiny_model(), config).train()
    whole.total_steps = 4
    shared = copy.deepcopy(whole)
    shared.chunk_size = chunk_size
    rows = torch.tensor([0, 0, 1, 1, 2, 2])
    one, clips = tiny_batch(6), tiny_batch(3)["audio"]
    one["clip_ids"] = one["clip_ids"][rows]
    each = {**one, "audio": {key: value[rows] for key, value in clips.items()}}
    once = {**one, "audio": {**clips, "rows": rows}}
    encoded = []
    shared.model.audio.encoder.register_forward_hook(
        lambda module, args, kwargs, out: encoded.append(len(out.states)), with_kwargs=True
    )
    expected, found = whole(**each), shared(**once)
    assert sum(encoded) == 3
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for losses in (expected, found):
        losses["loss"].backward()
    for p, q in zip(whole.parameters(), shared.parameters(), strict=True):
        assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-5)


def test_batches_that_a_criterion_would_take_wrongly_are_refused() -> None:
    pair, by_id = (Atc(LinearModel(), AtcConfig(positives=x)) for x in ("pair", "clip"))
    check_shared_clips(pair, 1, mixes=True)
    check_shared_clips(by_id, 3, mixes=True)
    with pytest.raises(InputError, match=r"`dataset.captions_per_clip` is 3, but .* is pair"):
        check_shared_clips(pair, 3, mixes=False)
    with pytest.raises(InputError, match=r"`dataset.mix` needs a criterion .* Linear has no"):
        check_shared_clips(torch.nn.Linear(1, 1), 1, mixes=True)
