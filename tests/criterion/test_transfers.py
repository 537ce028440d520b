"""A whole step's forward pass on a GPU: devices and dtypes fit, and the host never waits."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, Transfers, fake, fake_cuda, to_fake_cuda

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    Dcl,
    DclConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    Siglip,
    SiglipConfig,
)
from atr_moco_plugin.criterion.first_passes import LOOKED_AT
from atr_moco_plugin.data.loading.batch import PairBatch

aten = torch.ops.aten
HEADS = {
    "blip": {"name": "atm", "config": {"fusion": "blip"}},
    "albef": {"name": "atm", "config": {"fusion": "albef"}},
    "fusion": {"name": "fusion"},
}
BATCH = {"waveforms", "input_ids", "text_mask", "clip_ids", "caption_ids"}
# What a batch's lengths become, for both encoders and SpecAugment: once, and nobody waits.
COUNTS = ("aten::_to_copy", "cpu", "cuda", False)


def pair_batch(batch: dict[str, Any]) -> PairBatch:
    """The lengths are real, as the host reads them."""
    tensors = {
        "waveforms": batch["audio"]["waveforms"],
        "input_ids": batch["text"]["input_ids"],
        "text_mask": batch["text"]["mask"],
        "clip_ids": batch["clip_ids"],
        "caption_ids": batch["caption_ids"],
    }
    return PairBatch(
        lengths=batch["audio"]["lengths"], **{name: fake(x) for name, x in tensors.items()}
    )


def transfers_of_a_step(
    criterion: Any, batches: list[dict[str, Any]], dtype: torch.dtype | None
) -> list[tuple[str, str, str, bool]]:
    """What the last of some steps copies between host and device, but for the batch itself."""
    to_fake_cuda(criterion)
    criterion._first_passes._seen = LOOKED_AT  # those wait, and fake tensors have no values
    for values in batches:
        batch = pair_batch(values)
        with Transfers() as transfers:
            batch.to(CUDA, non_blocking=True)
        assert transfers.seen == [("aten::_to_copy", "cpu", "cuda", False)] * len(BATCH)
        autocast = torch.autocast("cuda", dtype) if dtype else nullcontext()
        with Transfers() as transfers, autocast:
            found = criterion(batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
        for name, value in found.items():
            assert value.device == CUDA and value.dtype == torch.float32, name
        criterion.on_optimizer_step()
    return transfers.seen


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
@pytest.mark.parametrize("masks", [False, True])
def test_host_and_device_meet_for_the_batch_alone(
    tiny_model, tiny_batch, monkeypatch, dtype, head: str, pooling: str, masks: bool
) -> None:
    options = {"spec_augment": {}} if masks else {}
    model = tiny_model(head=HEADS[head], audio_pooling=pooling, **options)
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=10)).train()
    batches = [tiny_batch(seed=i) for i in range(2)]
    with fake_cuda(monkeypatch):
        assert transfers_of_a_step(criterion, batches, dtype) == [COUNTS]


@pytest.mark.parametrize("momentum", ["whole", "dropped"])
def test_dropped_patches_are_sent_without_a_wait(
    tiny_model, tiny_batch, monkeypatch, momentum: str
) -> None:
    model = tiny_model(patch_dropout={"momentum": momentum})
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=10)).train()
    batches = [tiny_batch(seed=i) for i in range(2)]
    with fake_cuda(monkeypatch):
        assert transfers_of_a_step(criterion, batches, None) == [COUNTS, COUNTS]


@pytest.mark.parametrize("positives", ["target", "ignore"])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_whatever_the_loss(tiny_model, tiny_batch, monkeypatch, positives: str, alpha: float):
    batches = [tiny_batch(seed=i) for i in range(2)]
    config = MocoAtcConfig(queue_size=10, queue_positives=positives, alpha=alpha)
    with_queue, without = MocoAtc(tiny_model(), config), Atc(tiny_model(), AtcConfig())
    rivals = Dcl(tiny_model(), DclConfig()), Siglip(tiny_model(), SiglipConfig())
    with fake_cuda(monkeypatch):
        for criterion in (with_queue, without, *rivals):
            assert transfers_of_a_step(criterion.train(), batches, None) == [COUNTS]


def test_a_wait_would_be_seen(tiny_model, tiny_batch, monkeypatch) -> None:
    with fake_cuda(monkeypatch), Transfers() as transfers:
        x = torch.ones(3, device=CUDA)
        x.to("cpu")
        torch.ones(3).to(CUDA)
        x[0] = torch.ones(())
        for read in (
            lambda: aten._local_scalar_dense(x[0]),
            lambda: aten.nonzero(x > 0),
            lambda: aten.index(x, [x > 0]),
        ):
            with pytest.raises(RuntimeError):
                read()
    assert [wait for *_, wait in transfers.seen] == [True] * 6
