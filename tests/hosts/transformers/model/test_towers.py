"""Encoders of transformers as towers: CLAP with several crops, any other two, rates by layer."""

from __future__ import annotations

import pytest
import torch
from trainer_world import (
    HEAD,
    make_batch,
    make_clap,
    pair_of,
)
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertModel,
    ConvBertConfig,
    ConvBertModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapTrainerModel, TextModelTower
from atr_moco_plugin.optim.param_groups import parameter_groups


def test_a_model_that_fuses_crops_takes_is_longer() -> None:
    model = ClapTrainerModel(
        make_clap(enable_fusion=True, fusion_type="aff_2d"), head=HEAD, queue_size=10
    ).eval()
    batch = make_batch()
    batch["input_features"] = 20 * torch.randn(4, 4, 30, 8) - 40
    short = model(**batch)["audio_embeds"]
    batch["is_longer"][:2] = True
    mixed = model(**batch)["audio_embeds"]
    assert torch.allclose(short[2:], mixed[2:], atol=1e-6)
    assert ((short - mixed)[:2].abs().amax(dim=1) > 1e-4).all()
    model.train()(**batch)["loss"].backward()
    fusion = model.criterion.model.audio.encoder.audio_encoder.patch_embed.fusion_model
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


def test_any_two_encoders_of_transformers() -> None:
    ast = ASTModel(
        ASTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8,
        )
    )  # fmt: skip
    model = pair_of(ast)
    batch = make_batch()
    del batch["is_longer"]
    batch["input_features"] = torch.randn(4, 32, 16)
    losses = model(**batch)
    losses["loss"].backward()
    model.criterion.on_optimizer_step()
    assert model.criterion.model.audio.encoder.embeddings.cls_token.grad.abs().sum() > 0
    assert model.eval()(**batch)["audio_embeds"].shape == (4, 12)
    with pytest.raises(ValueError, match="'is_longer'.*input_features.*attention_mask"):
        model(**batch, is_longer=torch.zeros(4, 1))


def test_layers_of_transformers_models_are_found_for_layer_decay() -> None:
    model = ClapTrainerModel(make_clap(), "atc")
    names = {id(p): name for name, p in model.criterion.named_parameters()}
    groups = parameter_groups(model.criterion, 0.1, lr=1.0, layer_decay=0.5)
    found = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    text = {rate for name, rate in found.items() if "text.encoder.encoder.layer.0." in name}
    stages = {rate for name, rate in found.items() if "audio_encoder.layers.1." in name}
    assert len(text) == len(stages) == 1
    assert found["model.text.encoder.embeddings.word_embeddings.weight"] < min(text) <= 0.5
    assert found["model.audio.projection.linear1.weight"] == 1.0


def test_a_text_model_whose_first_token_sees_no_other_is_refused() -> None:
    gpt = GPT2Model(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(InputError, match="first token of GPT2Model has seen none of the others"):
        TextModelTower(gpt, 12)


def test_a_text_model_whose_padding_tells_is_refused() -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = ConvBertConfig(vocab_size=50, intermediate_size=16, embedding_size=16, **size)
    with pytest.raises(InputError, match="ConvBertModel lets padding, or chance, change a caption"):
        TextModelTower(ConvBertModel(config), 12)
    config.initializer_range = 0.5  # with more than rounding in half precision
    with pytest.raises(InputError, match="ConvBertModel lets padding, or chance, change a caption"):
        TextModelTower(ConvBertModel(config).half(), 12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_text_model_in_half_precision_is_taken(kind: str, dtype: torch.dtype) -> None:
    """Rounding was taken for what padding does."""
    torch.manual_seed(0)
    size = {"vocab_size": 1000, "num_hidden_layers": 4}
    if kind == "t5":
        model: torch.nn.Module = T5EncoderModel(T5Config(vocab_size=1000))
    else:
        model = (
            BertModel(BertConfig(**size)) if kind == "bert" else RobertaModel(RobertaConfig(**size))
        )
    TextModelTower(model.to(dtype), 64)


def test_asking_a_text_model_how_it_reads_leaves_no_trace() -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertModel(BertConfig(vocab_size=50, intermediate_size=16, **size)).train()
    bert.encoder.eval()
    modes, random = [x.training for x in bert.modules()], torch.random.get_rng_state()
    projection = torch.nn.Linear(16, 12)
    torch.random.set_rng_state(random)
    tower = TextModelTower(bert, 12)
    assert [x.training for x in bert.modules()] == modes
    assert torch.equal(tower.projection.weight, projection.weight)
    with torch.device("meta"):
        meta = BertModel(BertConfig(vocab_size=50, intermediate_size=16, **size))
    TextModelTower(meta, 12)  # it has no values, and is not asked
