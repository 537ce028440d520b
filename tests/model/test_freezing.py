from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import TINY_AUDIO, TINY_TEXT
from torch import Tensor, nn

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import (
    AudioTower,
    build_model,
    built_config,
    freeze_encoder,
    model_config,
)
from atr_moco_plugin.tokens import AudioTokens

NOISY_AUDIO = {**TINY_AUDIO, "dropout": 0.3, "attention_dropout": 0.3, "dropout_input": 0.3}
NOISY_TEXT = {**TINY_TEXT, "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
BELOW = {
    "audio": ["patch_embedding", "layer_norm", "post_extract_proj", "encoder.pos_conv"]
    + ["encoder.relative_attention_bias", "encoder.layer_norm", "encoder.layers.0"],
    "text": ["embeddings", "layers.0"],
}


def model_of(audio: Any = "none", text: Any = "none", **options: Any) -> Any:
    """Encoders of two layers with much dropout."""
    torch.manual_seed(0)
    values = {
        "embed_dim": 12,
        "audio": {"name": "beats", "config": NOISY_AUDIO, "freeze": audio},
        "text": {"name": "bert", "config": NOISY_TEXT, "freeze": text},
        **options,
    }
    return build_model(model_config(values))


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("part", ["audio", "text"])
def test_everything_below_the_layers_is_frozen_and_nothing_above(part: str) -> None:
    encoder = getattr(model_of(**{part: 1}), part).encoder
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    below = tuple(f"{name}." for name in BELOW[part])
    assert frozen == {n for n, _ in encoder.named_parameters() if n.startswith(below)}
    assert all(".layers.1." in f".{name}" for name in trained(encoder))
    assert trained(encoder)


@pytest.mark.parametrize("part", ["audio", "text"])
def test_all_leaves_pooling_projection_and_head(part: str) -> None:
    model = model_of(**{part: "all"}, audio_pooling="attention")
    tower = getattr(model, part)
    assert not trained(tower.encoder)
    assert trained(tower.projection) == {"weight", "bias"}
    assert all(p.requires_grad for p in model.head.parameters())
    if part == "audio":
        assert trained(tower.pooling)


def test_frozen_parts_stay_in_eval_mode() -> None:
    model = model_of(audio=1, text="all").train()
    encoder = model.audio.encoder
    assert encoder.training and encoder.layers[1].training and encoder.encoder.layers[1].training
    assert not encoder.layers[0].training and not encoder.dropout_input.training
    assert not any(x.training for x in model.text.encoder.modules())
    assert model.text.projection.training
    assert not any(x.training for x in model.eval().modules())


@torch.no_grad()  # attention has another kernel with a gradient
@pytest.mark.parametrize("freeze", [1, 2, "all"])
def test_what_is_prepared_gives_the_same_embeddings(tiny_batch, freeze: Any) -> None:
    batch, model = tiny_batch(), model_of(freeze, freeze).eval()
    plain = model_of().eval()
    plain.load_state_dict(model.state_dict())
    for part in ("audio", "text"):
        tower, inputs = getattr(model, part), batch[part]
        prepared = tower.prepare(**inputs)
        assert set(prepared) == {"tokens" if freeze == "all" else "lower"}
        assert tower.prepare(**prepared) == prepared
        found, tokens = tower(**prepared)
        again, _ = tower(**inputs)
        expected, expected_tokens = getattr(plain, part)(**inputs)
        assert torch.equal(found, expected) and torch.equal(again, expected)
        assert torch.equal(tokens.states, expected_tokens.states)


def test_dropout_of_the_trained_layers_alone(tiny_batch) -> None:
    """The frozen part is the same in every pass of training, the layer above is not."""
    audio, model = tiny_batch()["audio"], model_of(audio=1).train()
    first, second = (model.audio.prepare(**audio)["lower"].states for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(model.audio(**audio)[0], model.audio(**audio)[0])
    still = model_of(audio=2).train()
    assert torch.equal(still.audio(**audio)[0], still.audio(**audio)[0])


def test_no_gradient_and_no_change_of_what_is_frozen(tiny_batch) -> None:
    criterion = MocoAtcAtm(model_of(1, 1), MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
    before = {name: p.clone() for name, p in criterion.model.named_parameters()}
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=0.1)
    criterion.attach(optimizer)
    for seed in range(2):
        criterion(**tiny_batch(seed=seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, p in criterion.model.named_parameters():
        moved = not torch.equal(p, before[name])
        # In `blip` all of the text encoder has a gradient by way of the head, but for what is
        # frozen; position embeddings beyond the batch have one of 0.
        assert moved == p.requires_grad, name


def test_specaugment_masks_reach_the_frozen_layers_of_the_online_tower_alone(tiny_batch) -> None:
    audio = tiny_batch()["audio"]
    masks = {"time_masks": 4, "time_width": 40, "time_fraction": 1.0}
    model = model_of(audio="all", spec_augment=masks).train()
    prepared = model.audio.prepare(**audio)
    assert set(prepared) == {"features"}
    masked = model.audio(**prepared)[0]
    whole = model.eval().audio(**prepared)[0]
    assert not torch.equal(masked, whole)
    assert set(model.audio.prepare(**audio)) == {"tokens"}


def test_pooled_and_half_precision_tokens_enter_a_tower(tiny_batch) -> None:
    audio, model = tiny_batch()["audio"], model_of(audio="all").eval()
    expected, tokens = model.audio(**audio)
    pooled = model.audio.pooling(*tokens)
    embeddings, none = model.audio(pooled=pooled)
    assert torch.equal(embeddings, expected) and none is None
    half = AudioTokens(tokens.states.half(), tokens.mask)
    embeddings, found = model.audio(tokens=half)
    assert found.states.dtype == torch.float32
    # Once for the tower and its copy; a copy of a bfloat16 tower reads them as they were stored.
    assert model.audio.prepare(tokens=half)["tokens"].states.dtype == torch.float32
    tower = copy.deepcopy(model.audio).bfloat16()
    assert tower.prepare(tokens=half)["tokens"] is half
    torch.testing.assert_close(embeddings, expected, atol=1e-3, rtol=1e-3)


def test_rows_say_which_clip_an_item_has(tiny_batch) -> None:
    audio, model = tiny_batch()["audio"], model_of(audio=1).eval()
    expected, tokens = model.audio(**audio)
    rows = torch.tensor([2, 0, 2])
    embeddings, found = model.audio(**model.audio.prepare(**audio, rows=rows))
    assert torch.equal(embeddings, expected[rows])
    assert torch.equal(found.states, tokens.states[rows])


class Foreign(nn.Module):
    """An encoder of another package, without `lower`: a positional parameter beside its layers,
    a layer list of its own name, and a norm after it."""

    sample_rate = 16_000
    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(1, 8)
        self.positions = nn.Parameter(torch.zeros(8))
        self.dropout = nn.Dropout(0.5)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    @property
    def layers(self) -> list[nn.Module]:
        return list(self.blocks)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> AudioTokens:
        x = self.dropout(self.start(waveforms.unfold(1, 100, 100).mean(2)[..., None]))
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return AudioTokens(self.norm(x), torch.ones(x.shape[:2], dtype=torch.bool))


def test_an_encoder_without_lower_is_frozen_up_to_what_follows_its_layers() -> None:
    tower = AudioTower(Foreign(), 4, "mean")
    freeze_encoder(tower, 2)
    assert trained(tower.encoder) == {"blocks.2.weight", "blocks.2.bias", "norm.weight",
                                      "norm.bias"}  # fmt: skip
    tower.train()
    assert not tower.encoder.dropout.training and tower.encoder.norm.training
    waveforms = torch.randn(2, 1_000)
    assert set(tower.prepare(waveforms)) == {"waveforms", "lengths"}
    assert torch.equal(tower(waveforms)[0], tower(waveforms)[0])


@pytest.mark.parametrize("freeze", [0, -1, True, 1.5, "some", None])
def test_another_value_is_refused(freeze: Any) -> None:
    with pytest.raises(InputError, match="freeze"):
        model_of(audio=freeze)


def test_more_layers_than_there_are(tiny_model) -> None:
    with pytest.raises(InputError, match=r"`model.audio.freeze` is 3, .* has 2 layers"):
        model_of(audio=3)
    # The head of `albef` has taken the upper layer.
    with pytest.raises(InputError, match=r"`model.text.freeze` is 2, .* has 1 layers"):
        model_of(text=2, head={"name": "atm", "config": {"fusion": "albef"}})


def test_an_encoder_that_does_not_say_its_layers() -> None:
    class Silent(Foreign):
        layers = None  # type: ignore[assignment]

    with pytest.raises(InputError, match="does not say which its layers are"):
        freeze_encoder(AudioTower(Silent(), 4, "mean"), 1)
    tower = AudioTower(Silent(), 4, "mean")
    freeze_encoder(tower, "all")
    assert not trained(tower.encoder)


def test_all_with_an_adapter_is_refused() -> None:
    adapter = {"lora": {"rank": 2}}
    with pytest.raises(InputError, match="`freeze` is all, but `adapter` is set"):
        model_config({"audio": {"name": "beats", "freeze": "all", "adapter": adapter}})


def test_a_bundle_freezes_nothing() -> None:
    config = model_config({"audio": {"name": "beats", "config": TINY_AUDIO, "freeze": 1},
                           "text": {"name": "bert", "config": TINY_TEXT}})  # fmt: skip
    assert built_config(config, build_model(config)).audio.freeze == "none"


def test_everything_frozen_is_refused_before_the_first_step() -> None:
    model = model_of("all", "all")
    model.requires_grad_(False)
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=8))
    optimizer = torch.optim.SGD([criterion.temperature], lr=0.1)
    with pytest.raises(InputError, match="Everything of the model is frozen"):
        criterion.attach(optimizer)


@pytest.mark.parametrize("part", ["audio", "text"])
def test_a_frozen_part_that_trains_after_all_is_refused(tiny_batch, part: str) -> None:
    """It would run without a gradient."""
    model = model_of(1, 1)
    tower = getattr(model, part).requires_grad_(True)
    with pytest.raises(InputError, match="requires_grad. afterwards"):
        tower(**tiny_batch()[part])
    freeze_encoder(tower, "none")
    tower(**tiny_batch()[part])[0].sum().backward()
    assert all(p.grad is not None for p in tower.projection.parameters())
    assert tower.encoder.training and all(x.training for x in tower.encoder.layers)


@pytest.mark.parametrize("freeze", [2, "all"])
def test_one_layer_that_trains_after_all_is_refused(tiny_batch, freeze: Any) -> None:
    batch, model = tiny_batch(), model_of(freeze, freeze)
    for part in ("audio", "text"):
        tower = getattr(model, part)
        tower.encoder.layers[1].requires_grad_(True)
        with pytest.raises(InputError, match="requires_grad. afterwards"):
            tower(**batch[part])


def test_an_encoder_without_weights_can_be_frozen() -> None:
    class Frames(nn.Module):
        sample_rate, width = 16_000, 8

        def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> AudioTokens:
            x = waveforms.unfold(1, 8, 8)
            return AudioTokens(x, torch.ones(x.shape[:2], dtype=torch.bool))

    tower = AudioTower(Frames(), 4, "mean")
    freeze_encoder(tower, "all")
    assert set(tower.prepare(torch.randn(2, 800))) == {"tokens"}


def test_a_model_freezes_again_what_a_host_made_trainable() -> None:
    model = model_of(1, "all")
    expected = trained(model)
    model.requires_grad_(True)
    model.freeze()
    assert trained(model) == expected
    freeze_encoder(model.text, "none")
    assert trained(model) == expected | {f"text.encoder.{n}" for n, _ in
                                         model.text.encoder.named_parameters()}  # fmt: skip
