"""Patch dropout in a tower, its momentum copy and a criterion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.criterion.chunks import encode
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import AudioTower, built_config, model_config
from atr_moco_plugin.model.patch_dropout import PatchDropoutConfig

HALF = {"time": 0.4, "bands": 3}


def clips(*seconds: float) -> dict[str, Tensor]:
    lengths = torch.tensor([round(16_000 * x) for x in seconds])
    waveforms = torch.randn(len(seconds), int(lengths.max())) * 0.1
    waveforms *= torch.arange(waveforms.size(1)) < lengths[:, None]
    return {"waveforms": waveforms, "lengths": lengths}


def test_tokens_are_dropped_in_training_alone(tiny_model: Any) -> None:
    plain, tower = tiny_model().audio, tiny_model(patch_dropout=HALF).audio
    batch = clips(2.0, 1.0)
    whole = plain.eval()(**batch)
    state = torch.get_rng_state()
    embeddings, tokens = tower.eval()(**tower.prepare(**batch))
    assert torch.equal(embeddings, whole[0]) and torch.equal(tokens.states, whole[1].states)
    assert torch.equal(torch.get_rng_state(), state)
    tower.train()
    torch.manual_seed(0)
    embeddings, tokens = tower(**batch)
    # 12 steps of 8 rows; 4 steps and 3 rows are dropped.
    assert whole[1].states.size(1) == 96 and tokens.states.size(1) == tokens.mask.size(1) == 40
    assert not torch.allclose(embeddings, whole[0], atol=1e-4)
    torch.manual_seed(0)
    assert torch.equal(tower(**tower.prepare(**batch))[0], embeddings)
    assert not torch.equal(tower(**batch)[0], embeddings)


def test_a_short_clip_beside_a_long_one_never_loses_all_its_tokens(tiny_model: Any) -> None:
    tower = tiny_model(patch_dropout={"time": 0.9, "bands": 7}).audio.train()
    batch = clips(0.18, 10.0, 0.5, 0.35)
    for seed in range(30):
        torch.manual_seed(seed)
        embeddings, tokens = tower(**batch)
        assert tokens.mask.sum(1).tolist() == [1, 7, 1, 1]
        assert bool(embeddings.isfinite().all())


@pytest.mark.parametrize("freeze", ["none", 1])
def test_the_momentum_tower_is_whole_or_dropped(tiny_model: Any, tiny_batch: Any, freeze) -> None:
    batch, queues, losses = tiny_batch(), {}, {}
    audio = {"name": "beats", "config": tiny_model().config.audio.config, "freeze": freeze}
    for name, options in {
        "plain": {},
        "whole": {"patch_dropout": {**HALF, "momentum": "whole"}},
        "dropped": {"patch_dropout": {**HALF, "momentum": "dropped"}},
    }.items():
        model = tiny_model(audio=audio, **options)
        criterion = MocoAtc(model, MocoAtcConfig(queue_size=8)).train()
        torch.manual_seed(0)
        losses[name] = float(criterion(**batch)["loss"].detach())
        queues[name] = criterion.audio_queue.valid[0].clone()
    assert torch.equal(queues["plain"], queues["whole"])
    assert not torch.allclose(queues["plain"], queues["dropped"], atol=1e-4)
    assert len(set(losses.values())) == 3
    # Before the first step the copy is the tower: it has the embeddings of the tower itself.
    model = tiny_model(audio=audio, patch_dropout={**HALF, "momentum": "dropped"}).train()
    torch.manual_seed(0)
    torch.testing.assert_close(queues["dropped"], model.audio(**batch["audio"])[0].detach())


HEADS = {
    "blip": {"name": "atm", "config": {"fusion": "blip"}},
    "albef": {"name": "atm", "config": {"fusion": "albef"}},
    "fusion": {"name": "fusion", "config": {"heads": 2}},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("momentum", ["whole", "dropped"])
@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
def test_every_head_and_pooling_trains_on_what_is_left(
    tiny_model: Any, tiny_batch: Any, head: str, momentum: str, pooling: str
) -> None:
    model = tiny_model(
        head=HEADS[head],
        audio_pooling=pooling,
        spec_augment={"time_masks": 1, "time_width": 8},
        patch_dropout={**HALF, "momentum": momentum},
    )
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
    loss = criterion(**tiny_batch())["loss"]
    loss.backward()
    assert bool(loss.isfinite())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            assert bool(parameter.grad.isfinite().all()), name
    assert float(model.audio.encoder.patch_embedding.weight.grad.abs().max()) > 0


def test_a_compiled_criterion_makes_no_graph_anew(tiny_model: Any, tiny_batch: Any) -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    criterion = MocoAtc(tiny_model(patch_dropout=HALF), MocoAtcConfig(queue_size=20)).train()
    compiled = torch.compile(criterion, backend=backend)
    counts = []
    for step in range(8):
        torch.manual_seed(step)
        compiled(**tiny_batch(seed=step))["loss"].backward()
        counts.append(len(graphs))
    assert 0 < counts[4] == counts[7], counts
    torch._dynamo.reset()


def test_frozen_layers_run_once_and_on_every_token(tiny_model: Any) -> None:
    audio = {"name": "beats", "config": tiny_model().config.audio.config, "freeze": 1}
    tower = tiny_model(audio=audio, patch_dropout={**HALF, "momentum": "whole"}).audio.train()
    inputs = tower.prepare(**clips(2.0, 1.0))
    assert set(inputs) == {"lower"}
    assert inputs["lower"].states.size(1) == 96 and len(inputs["lower"].kept) == 40
    assert tower(**inputs)[1].states.size(1) == 40
    tower.eval()
    assert tower(**inputs)[1].states.size(1) == 96  # as a momentum copy sees it


def test_a_chunk_is_run_again_with_the_pattern_it_had(tiny_model: Any) -> None:
    """Gradient caching draws a pattern for each chunk and keeps it for the chunk's gradient."""
    batch, weights, grads = clips(1.0, 0.7, 1.2, 0.4), torch.randn(4, 12), []
    for chunk_size in (2, None):
        tower = tiny_model(patch_dropout=HALF).audio.train()
        torch.manual_seed(0)
        if chunk_size is None:
            halves = [{name: x[k : k + 2] for name, x in batch.items()} for k in (0, 2)]
            embeddings = torch.cat([tower(**half)[0] for half in halves])
        else:
            embeddings = encode(tower, batch, chunk_size).embeddings
        torch.rand(7)  # another state by the time of the backward pass
        (embeddings * weights).sum().backward()
        grads.append([x.grad for x in tower.parameters() if x.grad is not None])
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_a_run_that_starts_from_another_drops_nothing_unless_asked(tiny_model: Any) -> None:
    model = tiny_model(patch_dropout=HALF)
    assert model.config.patch_dropout == PatchDropoutConfig(**HALF)
    assert built_config(model.config, model).patch_dropout is None


def test_nothing_to_drop_for_is_refused(tiny_model: Any) -> None:
    for freeze in ("all", 2):
        audio = {"name": "beats", "config": tiny_model().config.audio.config, "freeze": freeze}
        with pytest.raises(
            InputError, match=f"`model.audio.freeze` is {freeze}, so that none does"
        ):
            tiny_model(audio=audio, patch_dropout=HALF)


def test_an_encoder_that_cannot_do_it_is_refused(tiny_model: Any) -> None:
    class Plain(torch.nn.Module):
        width, sample_rate = 4, 16_000

    with pytest.raises(InputError, match=r"`model.patch_dropout` drops patches, but Plain has no"):
        AudioTower(Plain(), 8, "mean", patch_dropout=PatchDropoutConfig())
    with pytest.raises(InputError, match=r"`model.patch_dropout.bands` is 8, .* has 8 rows"):
        tiny_model(patch_dropout={"bands": 8})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time": 1}, "`time` is 1, expected at least 0 and below 1"),
        ({"time": -0.1}, "`time` is -0.1"),
        ({"bands": -1}, "`bands` is -1, expected 0 or more"),
        ({"time": 0, "bands": 0}, "which drops nothing"),
        ({"momentum": "half"}, "`model.patch_dropout.momentum` is 'half'"),
        ({"share": 0.5}, "share"),
    ],
)
def test_wrong_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_config({"patch_dropout": values})


def test_the_defaults_leave_half_of_ten_seconds(tiny_model: Any) -> None:
    tower = tiny_model(patch_dropout={}).audio.train()
    with torch.no_grad():
        tokens = tower(**clips(10.0))[1]
    assert tokens.states.size(1) == 496 // 2
