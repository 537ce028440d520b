"""A whole training step of BEATs-base and BERT-base, and what its parts cost.

    python -m benchmarks.step [--device cuda]

All steps are forward, backward, AdamW and the moving averages, in training mode, of one model with
random weights on noise of 10 s and captions of 16 to 24 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    pairs,
)
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.tokens import AudioTokens, TextTokens
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.plain_blip import PlainBlip

TINY: dict[str, Any] = {
    "embed_dim": 12,
    "audio": {
        "name": "beats",
        "config": {"embed_dim": 16, "encoder_layers": 1, "encoder_embed_dim": 24,
                   "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2, "conv_pos": 8,
                   "conv_pos_groups": 2},
    },
    "text": {
        "name": "bert",
        "config": {"vocab_size": 1_000, "hidden_size": 24, "num_hidden_layers": 2,
                   "num_attention_heads": 2, "intermediate_size": 32,
                   "max_position_embeddings": 32},
    },
}  # fmt: skip


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device, cuda = machine.device, machine.device.type == "cuda"
    b, seconds, queue_size = (4, 0.5, 16) if tiny else (32 if cuda else 4, 10.0, 65_536)
    torch.manual_seed(0)
    model = build_model(model_config(TINY if tiny else {})).to(device)
    batch = make_batch(b, seconds, device)
    ours = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=queue_size)).to(device)
    fill(ours, batch)
    plain = plain_like(ours).to(device)

    error, flops = compare(ours, plain, batch)

    moco = MocoAtc(model, MocoAtcConfig(queue_size=queue_size)).to(device)
    fill(moco, batch)
    atc = Atc(model, AtcConfig()).to(device)
    criteria = (ours, plain, moco, atc)
    # One for all, which skips what has no gradient in a step: the averages of four would take GBs.
    optimizer = AdamW(
        [*model.parameters(), *(c.temperature for c in criteria)], lr=1e-6, fused=True
    )
    steps = [partial(one_step, c.train(), optimizer, batch) for c in criteria]
    whole, blip, moco_atc, plain_atc = harness.fastest(steps, device, rounds=10 if cuda else 3)

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    averaged = sum(p.numel() for m in (ours.audio_m, ours.text_m) for p in m.parameters())
    products = machine.floor(flops=flops, dtype="bfloat16" if cuda else "float32")
    adamw, ema = machine.floor(moved=28 * trained), machine.floor(moved=12 * averaged)
    sizes = f"B {b}, Q {queue_size:,}" + (", bfloat16" if cuda else "")
    yield Row(
        name=f"whole training step moco_atc_atm, {sizes}",
        baseline_name="BLIP's loop around the same model",
        ours=whole,
        baseline=blip,
        floor=products + adamw + ema,
        floor_name="products of its linear layers, and memory that AdamW and EMA move",
        error=error,
        error_name="losses and gradients with the same hard negatives, without dropout",
        target=2.0 if cuda else 1.2,
    )
    yield Row(
        name=f"moco_atc step, {sizes}",
        baseline_name="atc step",
        ours=moco_atc,
        baseline=plain_atc,
        floor=plain_atc * 4 / 3,
        floor_name="a third of the baseline more, for the momentum pass",
        target=1.35 if cuda else 1.4,
        cost=True,
    )
    yield Row(
        name=f"moco_atc_atm step, {sizes}",
        baseline_name="atc step",
        ours=whole,
        baseline=plain_atc,
        floor=products + adamw + ema,
        floor_name="as of the whole step",
        target=1.8 if cuda else 2.0,
        cost=True,
    )
    yield from _rest(machine, ours, optimizer, batch, whole, sizes, adamw, ema)


def _rest(
    machine: Machine,
    criterion: MocoAtcAtm,
    optimizer: AdamW,
    batch: dict[str, Any],
    whole: float,
    sizes: str,
    adamw_floor: float,
    ema_floor: float,
) -> Iterator[Row]:
    """What is not an encoder pass: the criterion around towers and a head that do nothing, and the
    two updates of all weights, each on its own."""
    device = machine.device
    for parameter in (*criterion.model.parameters(), criterion.temperature):
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)  # AdamW takes as long whatever they are
    around = MocoAtcAtm(Done(criterion.model, batch), criterion.config).to(device).train()
    fill(around, batch)
    seconds = harness.fastest(
        [
            lambda: around(**batch)["loss"].backward(),
            criterion.on_optimizer_step,
            optimizer.step,
        ],
        device,
        rounds=5,
    )
    optimizer.zero_grad()
    loss, ema, adamw = seconds
    whole_name = f"the whole step, {sizes}"
    parts = (
        ("everything that is no pass of an encoder or of the fusion layers", loss + ema + adamw,
         adamw_floor + ema_floor, "memory that AdamW and EMA move", 0.05),
        ("of it positives, both losses and their gradients, hard negatives, pairs, enqueue", loss,
         None, "", None),
        ("of it EMA", ema, ema_floor, "bandwidth: two reads and one write", None),
        ("of it AdamW, fused", adamw, adamw_floor, "bandwidth: four reads and three writes", None),
    )  # fmt: skip
    for name, ours, floor, floor_name, target in parts:
        yield Row(
            name=name, baseline_name=whole_name, ours=ours, baseline=whole, floor=floor,
            floor_name=floor_name, target=target, cost=True,
        )  # fmt: skip


class _DoneTower(nn.Module):
    """Embeddings and tokens that are there already."""

    def __init__(self, embeddings: Tensor, tokens: AudioTokens | TextTokens) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(embeddings)
        self.states = nn.Parameter(tokens.states.float())
        self.others = tokens[1:]
        self.kind = type(tokens)

    def forward(self, **_: Any) -> tuple[Tensor, AudioTokens | TextTokens]:
        return self.embeddings, self.kind(self.states, *self.others)


class Done(nn.Module):
    """A model that has encoded a batch before, with a head that only adds what it is given.

    Args:
        model: what encodes it, once.
        batch: arguments of a criterion.
    """

    def __init__(self, model: RetrievalModel, batch: dict[str, Any]) -> None:
        super().__init__()
        self.embed_dim = model.embed_dim
        with torch.no_grad():
            self.audio = _DoneTower(*model.audio(**batch["audio"]))
            self.text = _DoneTower(*model.text(**batch["text"]))

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        """``[P, 2]`` from the tokens' first channels."""
        return text.states[:, 0, :2] + audio.states[:, 0, :2]


@dataclass(frozen=True)
class _Result:
    losses: Tensor
    gradients: list[Tensor]


def compare(ours: MocoAtcAtm, plain: PlainBlip, batch: dict[str, Any]) -> tuple[float, float]:
    """Largest relative difference of losses and gradients in float32 without dropout, where the
    baseline is given our hard negatives; and the operations of our matrix products."""
    ours.eval()
    plain.eval()
    drawn: list[Tensor] = []
    real = pairs.hard_negatives

    def recorded(*args: Any) -> Tensor:
        drawn.append(real(*args))
        return drawn[-1]

    with mock.patch.object(pairs, "hard_negatives", recorded):
        with FlopCounterMode(display=False) as counter:
            one = _result(ours, ours(**batch))
    hard_text, hard_audio = (x.tolist() for x in drawn)
    two = _result(plain, plain(**batch, negatives=(hard_audio, hard_text)))
    # Of all gradients together: that of a key's bias is rounding alone.
    scale = max(float(g.abs().max()) for g in two.gradients)
    gradients = max(
        float((x.flatten() - y.flatten()).abs().max())
        for x, y in zip(one.gradients, two.gradients, strict=True)
    )
    losses = float(((one.losses - two.losses) / two.losses).abs().max())
    return max(losses, gradients / scale), float(counter.get_total_flops())


def _result(criterion: nn.Module, out: dict[str, Tensor]) -> _Result:
    parameters = [*criterion.model.parameters(), criterion.temperature]
    wanted = [p for p in parameters if p.requires_grad]
    losses = torch.stack([out[name].detach() for name in ("loss_atc", "loss_atm")])
    out["loss"].backward()
    gradients = [p.grad for p in wanted]
    criterion.zero_grad()
    return _Result(losses, gradients)


def make_batch(b: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """Noise and random captions of 16 to 24 tokens, as the arguments of a criterion."""
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.randn(b, round(16_000 * seconds), generator=generator) * 0.1
    lengths = torch.arange(b) % 9 + 16
    mask = torch.arange(24) < lengths[:, None]
    # Up to the longest, as a loader pads them.
    mask = mask[:, : int(lengths.max())]
    input_ids = torch.randint(5, 1_000, mask.shape, generator=generator) * mask
    return {
        "audio": {"waveforms": waveforms.to(device)},
        "text": {"input_ids": input_ids.to(device), "mask": mask.to(device)},
        "clip_ids": torch.arange(b, device=device),
        "caption_ids": torch.arange(b, device=device) + 1_000_000,
    }


def fill(criterion: MocoAtc, batch: dict[str, Any]) -> None:
    """Write every row of the queues once; a few are positives of the batch."""
    size, device = criterion.audio_queue.size, criterion.audio_queue.embeddings.device
    clips = torch.arange(size, device=device) % max(size // 4, 1)
    captions = torch.arange(size, device=device) + 2_000_000
    for queue in criterion.queues.values():
        rows = F.normalize(torch.randn(size, queue.dim, device=device), dim=1)
        queue.enqueue(rows, clips, captions)


def plain_like(criterion: MocoAtcAtm) -> PlainBlip:
    """The baseline around the same model, with the same queues."""
    audio, clips, captions = criterion.audio_queue.valid
    plain = PlainBlip(criterion.model, len(audio))
    plain.audio_queue.copy_(audio.T)
    plain.text_queue.copy_(criterion.text_queue.valid[0].T)
    plain.ids_queue.copy_(torch.stack([clips, captions]))
    return plain


def one_step(criterion: nn.Module, optimizer: AdamW, batch: dict[str, Any]) -> None:
    """A step as a host makes one, in bfloat16 autocast on a GPU."""
    device = batch["clip_ids"].device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        losses = criterion(**batch)
    losses["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    if isinstance(criterion, Atc):  # the baseline averages inside of its forward pass
        criterion.on_optimizer_step()


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
