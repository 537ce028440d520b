"""A criterion around a ClapModel as the module of ``Trainer``: loss, embeddings, state."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trainer_world import (
    HEAD,
    TiedEncoder,
    make_batch,
    make_clap,
    make_trainer,
    pair_of,
)
from transformers import (
    ClapModel,
    Trainer,
    TrainingArguments,
)

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHead
from atr_moco_plugin.hosts.transformers import (
    ClapTrainerModel,
    TextModelTower,
    TowerPair,
    TrainerModel,
)
from atr_moco_plugin.tokens import AudioTokens, TextTokens


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Bare(nn.Module):
    """A ClapModel as the criterion takes it, written down from the public contract."""

    class Audio(nn.Module):
        def __init__(self, clap: ClapModel) -> None:
            super().__init__()
            self.model, self.projection = clap.audio_model, clap.audio_projection

        def forward(self, features: Tensor) -> tuple[Tensor, AudioTokens]:
            output = self.model(features)
            b, width = output.last_hidden_state.shape[:2]
            states = output.last_hidden_state.reshape(b, width, -1).permute(0, 2, 1)
            embedding = self.projection(states.mean(dim=1))
            mask = torch.ones(states.shape[:2], dtype=torch.bool)
            return embedding / embedding.norm(dim=1, keepdim=True), AudioTokens(states, mask)

    class Text(nn.Module):
        def __init__(self, clap: ClapModel) -> None:
            super().__init__()
            self.model, self.projection = clap.text_model, clap.text_projection

        def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, TextTokens]:
            output = self.model(ids, mask)
            embedding = self.projection(output.pooler_output)
            states = output.last_hidden_state
            return (
                embedding / embedding.norm(dim=1, keepdim=True),
                TextTokens(states, mask.bool(), ids),
            )

    def __init__(self, clap: ClapModel, head: nn.Module) -> None:
        super().__init__()
        self.audio, self.text, self.head = self.Audio(clap), self.Text(clap), head
        self.embed_dim = 12

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        return self.head(None, text, audio)


def test_the_wrapper_has_the_loss_of_the_bare_criterion() -> None:
    options = {"queue_size": 10, "momentum": 0.8, "temperature": 0.1}
    wrapped = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, **options)
    clap = make_clap()
    head = FusionHead(type("Text", (), {"width": 16}), 16, HEAD)
    head.load_state_dict(wrapped.criterion.model.head.state_dict())
    bare = MocoAtcAtm(Bare(clap, head), MocoAtcAtmConfig(atm_start=0, **options))
    optimizers = [torch.optim.SGD(x.parameters(), lr=0.05) for x in (wrapped, bare)]
    for step in range(4):  # 16 rows go through a queue of 10
        batch = make_batch(seed=step % 3)
        torch.manual_seed(step)  # of the dropouts
        losses = wrapped(**batch)
        torch.manual_seed(step)
        expected = bare(
            {"features": batch["input_features"]},
            {"ids": batch["input_ids"], "mask": batch["attention_mask"]},
            batch["clip_id"],
            batch["caption_id"],
        )
        assert losses.keys() == expected.keys()
        for name in expected:
            assert losses[name].item() == pytest.approx(expected[name].item(), abs=1e-5), name
        for optimizer, result in zip(optimizers, (losses, expected), strict=True):
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
        wrapped.criterion.on_optimizer_step()
        bare.on_optimizer_step()
    assert len(bare.audio_queue) == 10


def test_a_clap_model_keeps_its_temperature_where_none_is_learned() -> None:
    clap = make_clap()
    before = clap.logit_scale_a.item()
    assert ClapTrainerModel(clap, "m_ltm").clap.logit_scale_a.item() == before
    learned = ClapTrainerModel(clap, "atc", temperature=0.1).clap
    assert learned.logit_scale_a.item() == pytest.approx(math.log(10))


def test_embeddings_in_evaluation_are_the_clap_models_and_change_nothing() -> None:
    clap = make_clap()
    model = ClapTrainerModel(clap, head=HEAD, atm_start=0, queue_size=10).eval()
    batch = make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    output = model(**batch)
    expected = clap(
        **{name: batch[name] for name in ("input_ids", "attention_mask", "input_features")}
    )
    assert torch.allclose(output["audio_embeds"], expected.audio_embeds, atol=1e-6)
    assert torch.allclose(output["text_embeds"], expected.text_embeds, atol=1e-6)
    logits = expected.audio_embeds @ expected.text_embeds.T / 0.07
    both = (logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()) / 2
    assert output["loss"].item() == pytest.approx(-both.mean().item(), abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_momentum_copies_take_batch_norms_and_each_tower_is_there_once() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=10)
    model.train()
    for seed in range(3):
        model(**make_batch(seed=seed))
        model.criterion.on_optimizer_step()
    online = model.criterion.model.audio.encoder.audio_encoder.batch_norm
    copy = model.criterion.audio_m.module.encoder.audio_encoder.batch_norm
    assert torch.equal(online.running_mean, copy.running_mean)
    assert online.running_mean.abs().max() > 1 and not copy.training and online.training
    clap_size = sum(p.numel() for p in make_clap().parameters()) - 2  # without the logit scales
    trained = [p for p in model.parameters() if p.requires_grad]
    head = sum(p.numel() for p in model.criterion.model.head.parameters())
    assert sum(p.numel() for p in trained) == clap_size + head + 1
    assert sum(p.numel() for p in model.parameters()) == 2 * clap_size + head + 1


@pytest.mark.parametrize(
    ("scales", "tau"), [((1 / 0.07, 1 / 0.07), 0.07), ((10.0, 40.0), 0.05), ((1.0, 1.0), 0.5)]
)
def test_the_temperature_is_read_from_the_model_and_written_back(
    scales: tuple[float, float], tau: float, tmp_path: Path
) -> None:
    clap = make_clap()
    clap.logit_scale_a.data.fill_(math.log(scales[0]))
    clap.logit_scale_t.data.fill_(math.log(scales[1]))
    model = ClapTrainerModel(clap, head=HEAD, atm_start=0, queue_size=10)
    assert model.criterion.temperature.item() == pytest.approx(tau, rel=1e-6)
    model.criterion.temperature.data.fill_(0.02)
    model.save_pretrained(tmp_path)
    loaded = ClapModel.from_pretrained(tmp_path)
    assert loaded.logit_scale_a.exp().item() == pytest.approx(50, rel=1e-5)
    assert loaded.logit_scale_t.exp().item() == pytest.approx(50, rel=1e-5)
    assert ClapTrainerModel(
        clap, head=HEAD, queue_size=10, temperature=0.3
    ).criterion.temperature.item() == pytest.approx(0.3)


@pytest.mark.parametrize("criterion", ["moco_atc", "atc"])
def test_other_criteria_by_name(criterion: str, tmp_path: Path) -> None:
    options = {} if criterion == "atc" else {"queue_size": 10}
    model = ClapTrainerModel(make_clap(), criterion, head=HEAD, **options)
    losses = model(**make_batch())
    losses["loss"].backward()
    model.criterion.on_optimizer_step()
    assert losses["loss"].isfinite()
    assert model.criterion.model.head is None  # nothing to train that gets no gradient


def test_tied_weights_are_saved_once_and_restored(tmp_path: Path) -> None:
    model = pair_of(TiedEncoder())
    trainer = Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    trainer.save_model(str(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")
    assert "criterion.model.audio.encoder.second.weight" not in saved
    other = pair_of(TiedEncoder())
    other.criterion.model.audio.encoder.first.weight.data.zero_()
    assert not other.load_state_dict(saved, strict=True).missing_keys
    assert_equal_states(model, other)
    audio = other.criterion.model.audio.encoder
    assert audio.first.weight is audio.second.weight and audio.first.weight.abs().sum() > 0


def test_gradient_checkpointing_changes_no_weight(tmp_path: Path) -> None:
    states = []
    for on in (False, True):
        trainer = make_trainer(tmp_path / str(on), gradient_checkpointing=on)
        audio, text = (getattr(trainer.model.criterion.model, x) for x in ("audio", "text"))
        passes = {"audio": 0, "text": 0}
        layers = {
            "audio": audio.encoder.audio_encoder.layers[0],
            "text": text.encoder.encoder.layer[0],
        }
        for name, layer in layers.items():

            def count(*_: Any, name: str = name, passes: dict[str, int] = passes) -> None:
                passes[name] += 1

            # Within the layer: transformers 5 keeps a layer's own hooks out of the checkpoint.
            linear = next(x for x in layer.modules() if isinstance(x, nn.Linear))
            linear.register_forward_pre_hook(count)
        trainer.train()
        # Four steps; once more in each backward pass.
        assert passes == dict.fromkeys(passes, 8 if on else 4)
        states.append(trainer.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_gradient_checkpointing_of_a_tower_without_layers_is_refused(tmp_path: Path) -> None:
    class Audio(nn.Module):
        def forward(self, input_features: torch.Tensor) -> None: ...

    text = TextModelTower(make_clap().text_model, 12)
    model = TrainerModel(TowerPair(Audio(), text, None, 12), "atc")
    arguments = TrainingArguments(
        str(tmp_path), gradient_checkpointing=True, use_cpu=True, report_to=[]
    )
    trainer = Trainer(model, arguments, train_dataset=[{}] * 4)
    with pytest.raises(InputError, match="gradient_checkpointing=True.*audio tower"):
        trainer.train()


def test_what_a_model_of_two_towers_has_not() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=4)
    assert not hasattr(model, "config") and not hasattr(model, "get_input_embeddings")
    with pytest.raises(AttributeError, match="has no attribute 'confg'"):
        _ = model.confg


def test_chunks_give_the_loss_of_the_batch() -> None:
    def features(seed: int) -> dict[str, Tensor]:
        batch = make_batch(seed=seed)
        features = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(seed))
        del batch["is_longer"]
        return {**batch, "input_features": features}

    def build(chunk_size: int | None) -> TrainerModel:
        torch.manual_seed(1)
        return pair_of(TiedEncoder(), chunk_size=chunk_size)

    whole, chunked = build(None), build(3)
    for model in (whole, chunked):
        model.criterion.model.eval()  # without dropout
    for seed in range(2):
        losses = [model(**features(seed)) for model in (whole, chunked)]
        torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-5)
        for x in losses:
            x["loss"].backward()
    for (name, p), q in zip(whole.named_parameters(), chunked.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_chunks_of_a_batch_norm_are_refused() -> None:
    model = ClapTrainerModel(
        make_clap(), head=HEAD, atm_start=0, queue_size=8, chunk_size=2
    ).train()
    with pytest.raises(InputError, match=r"batch_norm' is a batch norm.*freeze the encoder"):
        model(**make_batch())


def test_a_loss_that_has_not_begun_is_left_out_of_the_means() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=1, queue_size=4)
    for waits in (True, False):
        model(**make_batch())
        model.criterion.on_optimizer_step()
        means = model.pop_measures()
        assert ("loss_atm" in means) != waits and math.isfinite(means["loss_atc"])
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=1, queue_size=4)
    model(**make_batch())
    model.criterion.on_optimizer_step()
    losses = model(**make_batch())  # one pass of two has it
    assert model.pop_measures()["loss_atm"] == pytest.approx(losses["loss_atm"].item())
