from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.encoders.bert import BertConfig, BertEncoder
from atr_moco_plugin.heads import AtmHead, AtmHeadConfig
from atr_moco_plugin.tokens import AudioTokens

AUDIO_WIDTH = 10
FUSIONS = ["blip", "albef"]


def build(fusion: str, **values: object) -> tuple[BertEncoder, AtmHead]:
    """A tiny encoder and head with weights large enough for every term to show."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    }
    encoder = BertEncoder(BertConfig(**(sizes | values)))
    head = AtmHead(encoder, AUDIO_WIDTH, AtmHeadConfig(fusion=fusion))
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *head.parameters()]:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return encoder.eval(), head.eval()


def captions(lengths: list[int], width: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (len(lengths), width or max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return torch.randint(1, 50, shape, generator=generator) * mask, mask


def clips(lengths: list[int], width: int | None = None) -> AudioTokens:
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (len(lengths), width or max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return AudioTokens(torch.randn(*shape, AUDIO_WIDTH, generator=generator), mask)


def score(
    encoder: BertEncoder, head: AtmHead, text: tuple[Tensor, Tensor], audio: AudioTokens
) -> Tensor:
    return head(encoder, encoder(*text), audio)


def plain_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean()
    unit = centred / torch.sqrt((centred**2).mean() + 1e-12)
    return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def plain_linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def plain_attention(
    x: Tensor, source: Tensor, weights: dict[str, Tensor], name: str, heads: int
) -> Tensor:
    size = x.shape[1] // heads
    rows = []
    for token in x:
        query = plain_linear(token, weights, f"{name}.query")
        context = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            keys = [plain_linear(s, weights, f"{name}.key")[part] for s in source]
            values = [plain_linear(s, weights, f"{name}.value")[part] for s in source]
            logits = [float(query[part] @ key) / math.sqrt(size) for key in keys]
            total = sum(math.exp(logit) for logit in logits)
            context.append(
                sum(math.exp(logit) / total * v for logit, v in zip(logits, values, strict=True))
            )
        output = plain_linear(torch.cat(context), weights, f"{name}.output")
        rows.append(plain_norm(token + output, weights, f"{name}.norm"))
    return torch.stack(rows)


def plain_layer(
    x: Tensor, audio: Tensor, weights: dict[str, Tensor], cross: dict[str, Tensor]
) -> Tensor:
    """One fused layer on one caption and one clip without padding: token by token, in float64."""
    x = plain_attention(x, x, weights, "attention", heads=4)
    x = plain_attention(x, audio, cross, "cross", heads=4)
    rows = []
    for token in x:
        inner = plain_linear(token, weights, "ffn_in")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        outer = token + plain_linear(inner, weights, "ffn_out")
        rows.append(plain_norm(outer, weights, "ffn_norm"))
    return torch.stack(rows)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_scores_equal_a_plain_float64_fusion(fusion: str) -> None:
    encoder, head = build(fusion, num_hidden_layers=2)
    text_lengths, audio_lengths = [3, 5], [4, 2]
    batch, audio = captions(text_lengths), clips(audio_lengths)
    text = encoder(*batch)
    logits = head(encoder, text, audio)
    layers = encoder.layers if head.layers is None else head.layers
    start = encoder.embeddings(batch[0]) if head.layers is None else text.states
    classifier = {f"c.{name}": p.double() for name, p in head.classifier.state_dict().items()}
    for row in range(2):
        x = start[row, : text_lengths[row]].double()
        for layer, cross in zip(layers, head.crosses, strict=True):
            weights = {name: p.double() for name, p in layer.state_dict().items()}
            fused = {f"cross.{name}": p.double() for name, p in cross.state_dict().items()}
            x = plain_layer(x, audio.states[row, : audio_lengths[row]].double(), weights, fused)
        expected = plain_linear(x[0], classifier, "c").float()
        torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 9)), min_size=1, max_size=4),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 7)),
    garbage=st.sampled_from([0.0, -3.0, 1e6]),
)
@torch.no_grad()
def test_padding_never_changes_a_score(
    fusion: str, lengths: list[tuple[int, int]], extra: tuple[int, int], garbage: float
) -> None:
    encoder, head = build(fusion)
    text_lengths, audio_lengths = [list(part) for part in zip(*lengths, strict=True)]
    input_ids, mask = captions(text_lengths, max(text_lengths) + extra[0])
    audio = clips(audio_lengths, max(audio_lengths) + extra[1])
    text = encoder(torch.where(mask, input_ids, 49), mask)
    text = text._replace(states=torch.where(mask[..., None], text.states, garbage))
    padded = audio._replace(states=torch.where(audio.mask[..., None], audio.states, garbage))
    logits = head(encoder, text, padded)
    for row, (t, a) in enumerate(lengths):
        one = slice(row, row + 1)
        alone = AudioTokens(audio.states[one, :a], audio.mask[one, :a])
        expected = score(encoder, head, (input_ids[one, :t], mask[one, :t]), alone)[0]
        torch.testing.assert_close(logits[row], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_valid_audio_token_counts(fusion: str) -> None:
    encoder, head = build(fusion)
    text, audio = captions([4]), clips([6])
    logits = score(encoder, head, text, audio)
    for token in range(6):
        changed = audio.states.clone()
        changed[0, token] += 1.0
        difference = score(encoder, head, text, audio._replace(states=changed)) - logits
        assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_clip_without_a_valid_token_adds_nothing_and_stays_finite(fusion: str) -> None:
    encoder, head = build(fusion)
    text, audio = captions([4, 4]), clips([5, 5])
    expected = score(encoder, head, text, audio)[1]
    audio.mask[0] = False
    logits = score(encoder, head, text, audio)
    torch.testing.assert_close(logits[1], expected, atol=2e-6, rtol=0)
    other = audio.states.clone()
    other[0] = 7.0
    torch.testing.assert_close(score(encoder, head, text, audio._replace(states=other)), logits)
    logits.square().sum().backward()
    for name, parameter in [*encoder.named_parameters(), *head.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_order_of_pairs_permutes_the_scores(fusion: str) -> None:
    encoder, head = build(fusion)
    (input_ids, mask), audio = captions([3, 7, 5]), clips([6, 2, 4])
    order = torch.tensor([2, 0, 1])
    logits = score(encoder, head, (input_ids, mask), audio)
    permuted = AudioTokens(audio.states[order], audio.mask[order])
    again = score(encoder, head, (input_ids[order], mask[order]), permuted)
    torch.testing.assert_close(again, logits[order], atol=2e-6, rtol=1e-5)
    mismatched = score(encoder, head, (input_ids, mask), permuted)
    assert (mismatched - logits).abs().max() > 1e-3


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradient_reaches_every_parameter_and_the_audio(fusion: str) -> None:
    encoder, head = build(fusion)
    encoder.train(), head.train()
    audio = clips([6, 3])
    states = audio.states.requires_grad_()
    logits = score(encoder, head, captions([5, 4]), audio)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in [*encoder.named_parameters(), *head.named_parameters()]:
        if not name.endswith("key.bias"):  # softmax is blind to it
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert states.grad is not None
    assert states.grad[audio.mask].abs().min() > 0 and states.grad[~audio.mask].eq(0).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_state_dicts_share_no_tensor_and_reload(fusion: str) -> None:
    encoder, head = build(fusion)
    both = [*encoder.state_dict().values(), *head.state_dict().values()]
    assert len({tensor.data_ptr() for tensor in both}) == len(both)
    assert not any("cross" in name for name in encoder.state_dict())
    text, audio = captions([4, 2]), clips([3, 5])
    expected = score(encoder, head, text, audio)
    fresh = BertEncoder(encoder.config)
    fresh_head = AtmHead(fresh, AUDIO_WIDTH, head.config)
    fresh.load_state_dict(encoder.state_dict())
    fresh_head.load_state_dict(head.state_dict())
    torch.testing.assert_close(score(fresh.eval(), fresh_head.eval(), text, audio), expected)


def test_blip_recomputes_from_ids_and_leaves_the_encoder_whole() -> None:
    encoder, head = build("blip")
    assert len(encoder.layers) == len(head.crosses) == 3
    text, audio = encoder(*captions([4, 2])), clips([3, 5])
    logits = head(encoder, text, audio)
    garbage = text._replace(states=torch.full_like(text.states, 1e3))
    torch.testing.assert_close(head(encoder, garbage, audio), logits, atol=0, rtol=0)


@pytest.mark.parametrize(("count", "lower", "upper"), [(None, 2, 1), (2, 1, 2)])
def test_albef_takes_the_upper_layers(count: int | None, lower: int, upper: int) -> None:
    encoder, _ = build("blip")
    original = deepcopy(encoder)
    head = AtmHead(encoder, AUDIO_WIDTH, AtmHeadConfig(fusion="albef", fusion_layers=count))
    assert (len(encoder.layers), len(head.layers), len(head.crosses)) == (lower, upper, upper)
    # The taken layers keep their weights.
    for kept, layer in zip(original.layers[lower:], head.layers, strict=True):
        for name, tensor in layer.state_dict().items():
            torch.testing.assert_close(tensor, kept.state_dict()[name], atol=0, rtol=0)
    text = encoder(*captions([4, 2]))
    states = text.states.detach()
    head(encoder, text._replace(states=states), clips([3, 5])).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_new_weights_are_berts_and_the_audio_width_is_the_audios() -> None:
    torch.manual_seed(0)
    encoder = BertEncoder(BertConfig(vocab_size=9, num_hidden_layers=1, intermediate_size=8))
    head = AtmHead(encoder, 512)
    cross = head.crosses[0]
    assert cross.key.weight.shape == cross.value.weight.shape == (768, 512)
    assert cross.query.weight.shape == cross.output.weight.shape == (768, 768)
    assert head.classifier.weight.shape == (2, 768)
    for part in (cross.query, cross.key, cross.value, cross.output, head.classifier):
        assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert part.weight.mean().abs() < 0.002 and part.bias.eq(0).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bf16_autocast_stays_near_float32(fusion: str) -> None:
    encoder, head = build(fusion)
    text, audio = captions([4, 2]), clips([3, 5])
    with torch.autocast("cpu", torch.bfloat16):
        logits = score(encoder, head, text, audio)
    exact = score(encoder, head, text, audio)
    torch.testing.assert_close(logits.float(), exact, atol=0.1, rtol=0.05)
    torch.testing.assert_close(score(encoder, head, text, audio), exact, atol=0, rtol=0)


def test_bad_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="`fusion` is 'late', expected one of blip, albef"):
        AtmHeadConfig(fusion="late")
    with pytest.raises(ValueError, match="`fusion_layers` is for fusion 'albef'"):
        AtmHeadConfig(fusion_layers=2)
    with pytest.raises(ValueError, match="`fusion_layers` is 0, expected 1 or more"):
        AtmHeadConfig(fusion="albef", fusion_layers=0)
    encoder, _ = build("blip")
    with pytest.raises(ValueError, match="3 layers cannot be split at layer 0"):
        AtmHead(encoder, AUDIO_WIDTH, AtmHeadConfig(fusion="albef", fusion_layers=3))
    single, _ = build("blip", num_hidden_layers=1)
    with pytest.raises(ValueError, match="1 layers cannot be split"):
        AtmHead(single, AUDIO_WIDTH, AtmHeadConfig(fusion="albef"))


def test_bad_pairs_are_refused() -> None:
    encoder, head = build("blip")
    text = encoder(*captions([4, 2]))
    with pytest.raises(ValueError, match="got 2 captions and 3 clips"):
        head(encoder, text, clips([3, 5, 1]))
    wide = AudioTokens(torch.randn(2, 3, 24), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="audio tokens of width 10, but got 24"):
        head(encoder, text, wide)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_clips_that_pairs_share_give_what_their_copies_give(fusion: str) -> None:
    encoder, head = build(fusion)
    text, audio = captions([3, 7, 5, 2, 6]), clips([6, 2, 4])
    rows = torch.tensor([2, 0, 2, 1, 2])
    found = []
    for shared in (True, False):
        states = audio.states.clone().requires_grad_()
        tokens = encoder(*text)
        if shared:
            logits = head(encoder, tokens, AudioTokens(states, audio.mask), rows)
        else:
            logits = head(encoder, tokens, AudioTokens(states[rows], audio.mask[rows]))
        parameters = [states, *encoder.parameters(), *head.parameters()]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0, 0]))
        found.append([logits, *torch.autograd.grad(loss, parameters, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="got 5 captions and 4 clips"):
        head(encoder, encoder(*text), audio, rows[:4])
