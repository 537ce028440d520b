"""The contrastive loss over a queue, forward and backward, beside its plain form.

python -m benchmarks.contrastive [--device cuda]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.criterion.atc import atc_loss, atc_targets
from benchmarks import harness
from benchmarks.harness import Machine, Row

DIM = 256
ALPHA = 0.4


def plain_atc(
    audio: Tensor,
    text: Tensor,
    audio_m: Tensor,
    text_m: Tensor,
    audio_queue: Tensor,
    text_queue: Tensor,
    positives: Tensor,
    temperature: Tensor,
) -> Tensor:
    """The same loss as ALBEF and BLIP write it: queues cloned and concatenated, two softmaxes."""
    audio_all = torch.cat([audio_m.t(), audio_queue.clone().detach().t()], dim=1)
    text_all = torch.cat([text_m.t(), text_queue.clone().detach().t()], dim=1)
    with torch.no_grad():
        hard = atc_targets(positives)
        a2t_soft = F.softmax(audio_m @ text_all / temperature, dim=1)
        t2a_soft = F.softmax(text_m @ audio_all / temperature, dim=1)
        a2t_targets = ALPHA * a2t_soft + (1 - ALPHA) * hard
        t2a_targets = ALPHA * t2a_soft + (1 - ALPHA) * hard
    a2t = audio @ text_all / temperature
    t2a = text @ audio_all / temperature
    loss_a2t = -torch.sum(F.log_softmax(a2t, dim=1) * a2t_targets, dim=1).mean()
    loss_t2a = -torch.sum(F.log_softmax(t2a, dim=1) * t2a_targets, dim=1).mean()
    return (loss_a2t + loss_t2a) / 2


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    million = (64 if machine.device.type == "cpu" else 256, 1_000_000)
    for b, k in ((4, 16),) if tiny else ((256, 65_536), million):
        yield from _rows(machine, b, k)


def _rows(machine: Machine, b: int, k: int) -> Iterator[Row]:
    device = machine.device
    generator = torch.Generator().manual_seed(0)

    def unit(n: int) -> Tensor:
        return F.normalize(torch.randn(n, DIM, generator=generator), dim=1).to(device)

    fixed = [unit(n) for n in (b, b, k, k)]
    online = [unit(b).requires_grad_() for _ in range(2)]
    temperature = torch.tensor([0.07], device=device, requires_grad=True)
    clips = torch.arange(b + k, device=device) % max(k // 4, 1)  # a few positives in the queue
    positives = clips[:b, None] == clips

    def gradients(loss: Callable[..., Tensor]) -> list[Tensor]:
        value = loss(*online, *fixed, positives, temperature)
        return [value.detach(), *torch.autograd.grad(value, [*online, temperature])]

    def ours() -> list[Tensor]:
        return gradients(lambda *x: atc_loss(*x, ALPHA))

    def plain() -> list[Tensor]:
        return gradients(plain_atc)

    error = max(harness.largest_error(x, y) for x, y in zip(ours(), plain(), strict=True))
    seconds = harness.fastest([ours, plain], device, rounds=3 if k > 100_000 else 5)
    # Online and momentum logits, and the gradient: three products in each direction.
    flops = 2 * 3 * 2 * b * (b + k) * DIM
    what = f"ATC, B {b}, Q {k:,}, forward and backward"
    yield Row(
        name=what,
        baseline_name="concatenation and two softmaxes (BLIP)",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(flops=flops, moved=2 * 2 * 4 * k * DIM),
        floor_name="three matrix products a direction, or two reads of the queues",
        error=error,
        error_name="loss and gradients",
        target=2.0,
    )
    memory = [harness.peak_mib(work, device) for work in (ours, plain)]
    yield Row(
        name=f"{what}: memory",
        baseline_name="the same",
        ours=memory[0],
        baseline=memory[1],
        target=2.0,
        unit="MiB",
    )


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
