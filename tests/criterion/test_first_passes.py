"""What is looked at in the first training passes alone: ids and lengths of embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from linear import LinearModel, linear_batch
from torch import Tensor, nn

from atr_moco_plugin.criterion import (
    Atc,
    Dcl,
    MLtm,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    Siglip,
    SogClr,
)
from atr_moco_plugin.criterion.first_passes import LOOKED_AT
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import check_ids

CRITERIA = (Atc, Dcl, Siglip, SogClr, MLtm, MocoAtc, MocoAtcAtm)
ALIKE = "all pairs are positives of each other"


class Changed(nn.Module):
    """A tower whose embeddings are changed on their way."""

    def __init__(self, tower: nn.Module, change: Any) -> None:
        super().__init__()
        self.tower, self.change = tower, change

    def forward(self, x: Tensor) -> Any:
        embeddings, tokens = self.tower(x)
        return self.change(embeddings), tokens


def criterion_of(kind: type[Atc], audio: Any = None, text: Any = None) -> Atc:
    model = LinearModel()
    model.audio = model.audio if audio is None else Changed(model.audio, audio)
    model.text = model.text if text is None else Changed(model.text, text)
    criterion = kind(model, kind.config_class()).train()
    criterion.total_steps = 10
    return criterion


@pytest.mark.parametrize("kind", CRITERIA)
def test_embeddings_that_are_not_of_length_1_are_refused(kind: type[Atc]) -> None:
    with pytest.raises(InputError, match="audio tower returns .* length 7 to 7, expected 1.*norma"):
        criterion_of(kind, audio=lambda x: 7 * x)(**linear_batch())
    with pytest.raises(InputError, match="text tower returns .* length 0.9 "):
        criterion_of(kind, text=lambda x: 0.9 * x)(**linear_batch())


@pytest.mark.parametrize("kind", CRITERIA)
def test_embeddings_of_another_size_are_refused(kind: type[Atc]) -> None:
    narrow = criterion_of(kind, text=lambda x: nn.functional.normalize(x[:, :3], dim=1))
    both = criterion_of(kind, *[lambda x: nn.functional.normalize(x[:, :3], dim=1)] * 2)
    with pytest.raises(InputError, match=r"text tower .* shape \[4, 3\], but `embed_dim` .* is 4"):
        narrow(**linear_batch())
    with pytest.raises(InputError, match=r"audio tower .* shape \[4, 3\], but `embed_dim` .* is 4"):
        both(**linear_batch())


@pytest.mark.parametrize("kind", CRITERIA)
def test_an_empty_batch_is_refused(kind: type[Atc]) -> None:
    batch = linear_batch()
    empty = {name: {"x": batch[name]["x"][:0]} for name in ("audio", "text")}
    ids = {name: batch[name][:0] for name in ("clip_ids", "caption_ids")}
    with pytest.raises(InputError, match="The batch has no clip"):
        criterion_of(kind)(**empty, **ids)


@pytest.mark.parametrize(
    "change", [torch.Tensor.bfloat16, lambda x: x * 0, lambda x: x * torch.nan, lambda x: x]
)
def test_rounded_empty_and_broken_embeddings_are_no_mistake_of_the_tower(change: Any) -> None:
    criterion = criterion_of(Atc, audio=lambda x: change(x).float())
    criterion(**linear_batch())


def test_lengths_are_looked_at_once() -> None:
    factor = [1.0]
    criterion = criterion_of(Atc, audio=lambda x: factor[0] * x)
    criterion(**linear_batch())
    factor[0] = 2.0
    criterion(**linear_batch(1))


@pytest.mark.parametrize("of", ["clip_ids", "caption_ids"])
def test_ids_that_make_every_pair_a_positive_are_warned_of_once(of: str) -> None:
    criterion = MocoAtcAtm(LinearModel(), MocoAtcAtmConfig(queue_size=8)).train()
    with pytest.warns(UserWarning, match=ALIKE) as caught:
        for seed in range(2 * LOOKED_AT):
            batch = linear_batch(seed)
            batch[of] = torch.zeros(4, dtype=torch.int64)
            criterion(**batch)["loss"].backward()
    assert len([x for x in caught if ALIKE in str(x.message)]) == 1


@pytest.mark.parametrize("way", ["one other batch", "one row", "pair", "evaluation"])
def test_batches_that_tell_something_apart_are_not_warned_of(way: str) -> None:
    config = MocoAtcConfig(queue_size=8, positives="pair" if way == "pair" else "clip_or_caption")
    criterion = MocoAtc(LinearModel(), config).train(way != "evaluation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(2 * LOOKED_AT):
            batch = linear_batch(seed)
            if way == "one row":
                batch = {
                    name: {"x": x["x"][:1]} if isinstance(x, dict) else x[:1]
                    for name, x in batch.items()
                }
            if way != "one other batch" or seed:
                batch["clip_ids"] = torch.zeros_like(batch["clip_ids"])
            criterion(**batch)["loss"].backward()


class OnDevice(Tensor):
    """Ids on an accelerator, with values."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0")


def test_negative_ids_on_a_device_are_looked_at_in_the_first_passes_alone() -> None:
    ids = torch.tensor([0, -1, 2, 3])
    on_device = ids.as_subclass(OnDevice)
    check_ids(4, on_device, on_device)
    with pytest.raises(InputError, match="`clip_ids` has -1: ids are 0 or above"):
        check_ids(4, on_device, on_device, any_device=True)
    batch = {**linear_batch(), "clip_ids": on_device}
    criterion = criterion_of(Atc)
    with pytest.raises(InputError, match="`clip_ids` has -1"):
        criterion(**batch)
    for seed in range(LOOKED_AT):
        criterion(**linear_batch(seed))
    criterion(**batch)
