"""The BEATs-base encoder on clips of 10 s, forward and backward, beside its plain form.

python -m benchmarks.beats [--device cuda]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from benchmarks import harness
from benchmarks.harness import Machine, Row
from benchmarks.plain_beats import plain_states


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    device = machine.device
    cuda = device.type == "cuda"
    torch.manual_seed(0)
    encoder = BeatsEncoder(_config(tiny)).to(device)
    clips, samples = (2, 8_000) if tiny else (32 if cuda else 2, 160_000)
    waveforms = torch.randn(clips, samples, device=device) * 0.1
    parameters = list(encoder.parameters())

    def gradients(states: Callable[[], Tensor]) -> list[Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            out = states()
        # Not the sum of squares, which the last layer norm holds constant.
        loss = (out.float() * weights).sum()
        return [out.detach(), *torch.autograd.grad(loss, parameters)]

    with torch.no_grad():
        weights = torch.randn_like(encoder(waveforms).states)

    def ours() -> list[Tensor]:
        return gradients(lambda: encoder(waveforms).states)

    def plain() -> list[Tensor]:
        return gradients(lambda: plain_states(encoder, waveforms))

    pairs = list(zip(ours(), plain(), strict=True))
    bias = 1 + [name for name, _ in encoder.named_parameters()].index(
        "encoder.relative_attention_bias.weight"
    )
    error = max(harness.largest_error(*pair) for pair in (pairs[0], pairs[bias]))
    seconds = harness.fastest([ours, plain], device, rounds=10 if cuda else 3)
    yield Row(
        name=f"BEATs-base encoder, forward and backward, {clips} clips of 10 s",
        baseline_name="clip by clip and explicit attention, the official arithmetic",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(
            flops=3 * _flops(encoder.config, clips, weights.size(1)),
            dtype="bfloat16" if cuda else "float32",
        ),
        floor_name="matrix products and convolutions",
        error=error,
        error_name="states, and gradient of the relative position bias"
        + (", both in bfloat16" if cuda else ""),
        target=3.0 if cuda else 1.3,
    )


def _config(tiny: bool) -> BeatsConfig:
    """Of the released model, without dropout for the sake of the comparison."""
    sizes = {"encoder_layers": 2, "conv_pos": 16} if tiny else {}
    off = dict.fromkeys(("dropout", "attention_dropout", "dropout_input"), 0.0)
    return BeatsConfig(**sizes, **off)


def _flops(config: BeatsConfig, clips: int, tokens: int) -> float:
    """Of the products of one forward pass; a backward pass has two for each of them."""
    width, patch = config.encoder_embed_dim, config.embed_dim
    linear = width * (4 * width + 2 * config.encoder_ffn_embed_dim)
    layer = linear + 2 * tokens * width
    positions = width * width // config.conv_pos_groups * config.conv_pos
    patches = patch * (config.input_patch_size**2 + width)
    return 2.0 * clips * tokens * (config.encoder_layers * layer + positions + patches)


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
