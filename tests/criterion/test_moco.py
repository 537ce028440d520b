from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.optim import AdamW

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    atc_loss,
    positive_pairs,
)
from atr_moco_plugin.errors import InputError


@pytest.fixture
def criterion(tiny_model):
    config = MocoAtcAtmConfig(atm_start=0, queue_size=10, momentum=0.9, alpha_warmup_steps=4)
    return MocoAtcAtm(tiny_model(), config).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atm_weight": 0}, "take the criterion `moco_atc`"),
        ({"atc_weight": 0}, "set `atm_start` to 0 and `atm_every` to 1"),
        ({"atc_weight": 0, "atm_start": 7}, "steps without a matching loss would learn nothing"),
        ({"atc_weight": 0, "atm_start": 0, "atm_every": 2}, "without a matching loss"),
        ({"atc_weight": 0, "atm_start": 0, "teachers": ("a",)}, "what `teachers` add too"),
        ({"seed": -1}, "`seed` is -1, expected 0 or more"),
    ],
)
def test_weights_that_train_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MocoAtcAtmConfig(**options)


def test_the_matching_loss_alone_can_be_trained(tiny_model, tiny_batch) -> None:
    config = MocoAtcAtmConfig(atc_weight=0, atm_start=0, queue_size=10)
    criterion = MocoAtcAtm(tiny_model(), config).train()
    losses, _ = train(criterion, tiny_batch, 2)
    assert all(losses)


def test_a_run_of_no_step_has_no_schedule(criterion, tiny_batch) -> None:
    criterion.total_steps = 0
    with pytest.raises(InputError, match="`total_steps` of the criterion is 0"):
        criterion(**tiny_batch(seed=0))


def train(criterion, tiny_batch, steps: int, first: int = 0, lr: float = 1e-3, optimizer=None):
    optimizer = optimizer or AdamW([p for p in criterion.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(first, first + steps):
        out = criterion(**tiny_batch(seed=step))
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        criterion.on_optimizer_step()
        losses.append(out["loss"].item())
    return losses, optimizer


def test_one_step_is_the_pure_functions_put_together(criterion, tiny_batch) -> None:
    train(criterion, tiny_batch, 2)
    batch = tiny_batch(seed=7)
    clips, captions = batch["clip_ids"], batch["caption_ids"]
    with torch.no_grad():
        a, u = criterion.model.audio(**batch["audio"])[0], criterion.model.text(**batch["text"])[0]
        a_m = criterion.audio_m.module(**batch["audio"])[0]
        u_m = criterion.text_m.module(**batch["text"])[0]
        audio_queue, queue_clips, queue_captions = criterion.audio_queue.valid
        expected = atc_loss(
            a, u, a_m, u_m, audio_queue, criterion.text_queue.valid[0],
            positive_pairs(
                clips, captions, torch.cat([clips, queue_clips]),
                torch.cat([captions, queue_captions]), "clip_or_caption",
            ),
            criterion.temperature, 0.4 * 2 / 4,
        )  # fmt: skip
    before = len(criterion.audio_queue)
    out = criterion(**batch)
    torch.testing.assert_close(out["loss_atc"], expected)
    torch.testing.assert_close(out["loss"], out["loss_atc"] + out["loss_atm"], check_stride=False)
    assert out["alpha"].item() == pytest.approx(0.2)
    # Enqueued after the loss, into both queues alike.
    assert before == 8 and len(criterion.audio_queue) == 10
    newest = [(8 + i) % 10 for i in range(4)]
    torch.testing.assert_close(criterion.audio_queue.embeddings[newest], a_m)
    torch.testing.assert_close(criterion.text_queue.embeddings[newest], u_m)
    assert torch.equal(criterion.text_queue.clip_ids[newest], clips)


def test_loss_falls_on_a_batch_it_sees_again(tiny_model, tiny_batch) -> None:
    # Without a queue: it would fill with copies of this batch, all of them positives.
    config = MocoAtcAtmConfig(atm_start=0, queue_size=0, momentum=0.9)
    criterion = MocoAtcAtm(tiny_model(), config).train()
    optimizer = AdamW([p for p in criterion.parameters() if p.requires_grad], lr=3e-3)
    batch = tiny_batch(b=4)
    losses = []
    for _ in range(80):
        out = criterion(**batch)
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        criterion.on_optimizer_step()
        losses.append((out["loss_atc"].item(), out["loss_atm"].item()))
    assert losses[-1][0] < losses[0][0] - 0.5
    assert losses[-1][1] < 0.6


def test_every_online_parameter_gets_a_gradient_and_no_momentum_one(criterion, tiny_batch) -> None:
    criterion(**tiny_batch())["loss"].backward()
    without = [n for n, p in criterion.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(not p.requires_grad for m in (criterion.audio_m, criterion.text_m)
               for p in m.parameters())  # fmt: skip
    assert not any("head" in name for name, _ in criterion.audio_m.named_parameters())


def test_ema_moves_once_a_step_and_not_in_forward(criterion, tiny_batch) -> None:
    before = copy.deepcopy(criterion.audio_m.state_dict())
    with torch.no_grad():
        for p in criterion.model.audio.parameters():
            p.add_(1.0)
    for seed in range(3):  # gradient accumulation
        criterion(**tiny_batch(seed=seed))["loss"].backward()
    for name, value in criterion.audio_m.state_dict().items():
        assert torch.equal(value, before[name])
    criterion.on_optimizer_step()
    name = "module.projection.weight"
    torch.testing.assert_close(criterion.audio_m.state_dict()[name], before[name] + 0.1)


def test_two_passes_can_share_one_backward(criterion, tiny_batch) -> None:
    train(criterion, tiny_batch, 3)
    losses = [criterion(**tiny_batch(seed=seed))["loss"] for seed in (7, 8)]
    sum(losses).backward()


def test_queues_and_momentum_stay_in_float32(criterion, tiny_batch) -> None:
    train(criterion, tiny_batch, 2)
    before = criterion.audio_queue.embeddings.clone()
    criterion.bfloat16()
    assert criterion.model.audio.projection.weight.dtype == torch.bfloat16
    assert torch.equal(criterion.audio_queue.embeddings, before)
    for module in (criterion.audio_m, criterion.text_m, criterion.text_queue):
        for x in (*module.parameters(), *module.buffers()):
            assert x.dtype != torch.bfloat16


def test_a_checkpoint_without_momentum_copies_them_anew(tiny_model) -> None:
    source = MocoAtc(tiny_model(seed=1), MocoAtcConfig(queue_size=4))
    saved = {k: v for k, v in source.state_dict().items() if k.startswith("model.")}
    criterion = MocoAtc(tiny_model(seed=2), MocoAtcConfig(queue_size=4))
    with pytest.warns(UserWarning, match="no momentum copy of the audio tower"):
        criterion.load_state_dict(saved, strict=False)
    for average, name in ((criterion.audio_m, "audio"), (criterion.text_m, "text")):
        online = getattr(criterion.model, name).state_dict()
        for key, value in average.module.state_dict().items():
            torch.testing.assert_close(value, online[key])


def test_evaluation_and_no_grad_passes_leave_the_queue(criterion, tiny_batch) -> None:
    criterion.eval()
    criterion(**tiny_batch())
    criterion.train()
    with torch.no_grad():
        criterion(**tiny_batch())
    assert len(criterion.audio_queue) == len(criterion.text_queue) == 0


def test_resume_is_exact(criterion, tiny_batch) -> None:
    _, optimizer = train(criterion, tiny_batch, 3)
    state = copy.deepcopy(criterion.state_dict())
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    expected, _ = train(criterion, tiny_batch, 3, first=3, optimizer=optimizer)

    torch.manual_seed(123)  # the draws of hard negatives must not hang on the global state
    resumed = MocoAtcAtm(copy.deepcopy(criterion.model), criterion.config).train()
    resumed.load_state_dict(state)
    optimizer = AdamW([p for p in resumed.parameters() if p.requires_grad], lr=1e-3)
    optimizer.load_state_dict(optimizer_state)
    again, _ = train(resumed, tiny_batch, 3, first=3, optimizer=optimizer)
    assert again == expected
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_state_dict_holds_no_tensor_twice(criterion) -> None:
    pointers = [v.data_ptr() for v in criterion.state_dict().values() if v.numel()]
    assert len(pointers) == len(set(pointers))


def test_alpha_rises_over_the_warm_up(criterion) -> None:
    seen = []
    for _ in range(6):
        seen.append(criterion.alpha)
        criterion.on_optimizer_step()
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])


def test_temperature_is_clipped_after_the_optimizer_and_not_in_forward(
    criterion, tiny_batch
) -> None:
    for value, clipped in ((7.0, 0.5), (1e-6, 0.001)):
        with torch.no_grad():
            criterion.temperature.fill_(value)
        criterion.on_optimizer_step()
        out = criterion(**tiny_batch())
        assert out["temperature"].item() == pytest.approx(clipped)
        assert torch.isfinite(out["loss"])


@pytest.mark.parametrize("kind", [Atc, MocoAtc])
def test_the_temperature_stays_above_its_lower_end(kind, tiny_model) -> None:
    criterion = kind(tiny_model(), kind.config_class(temperature_min=0.05))
    for value, clipped in ((0.02, 0.05), (0.3, 0.3)):
        with torch.no_grad():
            criterion.temperature.fill_(value)
        criterion.on_optimizer_step()
        assert criterion.temperature.item() == pytest.approx(clipped)
    # A loaded one too, of a run that let it fall further.
    lower = kind(tiny_model(), kind.config_class(temperature=0.02))
    criterion.load_state_dict(lower.state_dict())
    assert criterion.temperature.item() == pytest.approx(0.05)
    with pytest.raises(InputError, match=r"`temperature_min` is 0.1, above `temperature`"):
        kind.config_class(temperature_min=0.1)


def test_a_batch_of_one_item_has_no_negative_and_still_trains(criterion, tiny_batch) -> None:
    batch = tiny_batch(b=3)
    batch["clip_ids"] = torch.full((3,), 5)
    out = criterion(**batch)
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    labels_only = out["loss_atm"].item()
    assert labels_only > 0


def test_permuting_the_batch_leaves_the_contrastive_loss(criterion, tiny_batch) -> None:
    batch = tiny_batch(b=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = {
        key: {k: v[order] for k, v in value.items()} if isinstance(value, dict) else value[order]
        for key, value in batch.items()
    }
    criterion.eval()
    torch.testing.assert_close(
        criterion(**batch)["loss_atc"], criterion(**shuffled)["loss_atc"], atol=1e-5, rtol=1e-5
    )


def test_queue_positives_can_be_ignored(tiny_model, tiny_batch) -> None:
    losses = {}
    for choice in ("target", "ignore"):
        config = MocoAtcConfig(queue_size=16, queue_positives=choice)
        criterion = MocoAtc(tiny_model(), config).train()
        criterion(**tiny_batch(b=4))
        losses[choice] = criterion(**tiny_batch(b=4))["loss_atc"].item()
    assert losses["ignore"] < losses["target"]


def test_atc_is_plain_in_batch_cross_entropy(tiny_model, tiny_batch) -> None:
    criterion = Atc(tiny_model(), AtcConfig()).train()
    batch = tiny_batch(b=5)
    a, u = criterion.model.audio(**batch["audio"])[0], criterion.model.text(**batch["text"])[0]
    logits, labels = a @ u.T / 0.07, torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    out = criterion(**batch)
    torch.testing.assert_close(out["loss"], expected)
    assert criterion.queues == {} and set(out) == set(Atc.measures)


def test_criteria_return_what_they_say(tiny_model, tiny_batch) -> None:
    for kind in (Atc, MocoAtc, MocoAtcAtm):
        out = kind(tiny_model(), kind.config_class()).train()(**tiny_batch())
        assert set(out) == set(kind.measures)
        assert all(v.numel() == 1 for v in out.values())


def test_embed_dim_must_be_the_models(tiny_model) -> None:
    with pytest.raises(ValueError, match="`embed_dim` of the criterion is 8.*have size 12"):
        MocoAtc(tiny_model(), MocoAtcConfig(embed_dim=8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"queue_size": -1}, "`queue_size` is -1, expected 0 or more, or auto"),
        ({"queue_size": None}, "`queue_size` is None, expected int or auto"),
        ({"queue_size": "big"}, "`queue_size` is 'big', expected int or auto"),
        ({"queue_size": "auto", "queue_min": 3}, "`queue_min` is 3, expected 4 to"),
        ({"queue_size": "auto", "queue_max": 9}, "`queue_min` is 256.*which is 9"),
        ({"momentum": 1.5}, "`momentum` is 1.5"),
        ({"alpha": -0.1}, "`alpha` is -0.1"),
        ({"alpha_warmup_steps": -2}, "`alpha_warmup_steps` is -2"),
        ({"queue_warmup_steps": -2}, "`queue_warmup_steps` is -2"),
        ({"temperature": 3.0}, "`temperature` is 3.0"),
        ({"positives": "clips"}, "`positives` is 'clips'"),
        ({"queue_positives": "drop"}, "`queue_positives` is 'drop'"),
        ({"negatives": "all"}, "`negatives` is 'all'"),
        ({"atm_weight": -1.0}, "`atm_weight` is -1.0"),
    ],
)
def test_bad_options_are_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        MocoAtcAtmConfig(**values)


def test_the_queue_is_left_out_of_the_loss_during_its_warm_up(tiny_model, tiny_batch) -> None:
    losses = {}
    for name, options in {
        "warming": {"queue_size": 16, "queue_warmup_steps": 2},
        "no queue": {"queue_size": 0},
    }.items():
        criterion = MocoAtc(tiny_model(), MocoAtcConfig(**options)).train()
        losses[name] = [train(criterion, tiny_batch, 1, first=i)[0][0] for i in range(3)]
    assert losses["warming"][:2] == losses["no queue"][:2]
    assert losses["warming"][2] > losses["no queue"][2]


@pytest.mark.parametrize("told_first", [True, False])
def test_queues_of_other_data_are_never_taken_over(
    criterion, tiny_model, tiny_batch, told_first: bool
) -> None:
    criterion.set_data("clotho")
    train(criterion, tiny_batch, 2)
    state = copy.deepcopy(criterion.state_dict())

    other = MocoAtcAtm(tiny_model(seed=1), criterion.config)
    if told_first:
        other.set_data("audiocaps")
        with pytest.warns(UserWarning, match="of another data set, so they start empty"):
            other.load_state_dict(state)
    else:
        other.load_state_dict(state)
        with pytest.warns(UserWarning, match="of another data set, so they start empty"):
            other.set_data("audiocaps")
    assert len(other.audio_queue) == len(other.text_queue) == 0
    assert torch.equal(other.temperature, criterion.temperature)
    # What it saves from now on is of its own data.
    train(other, tiny_batch, 1)
    assert not torch.equal(other.state_dict()["data_fingerprint"], state["data_fingerprint"])
    again = MocoAtcAtm(tiny_model(), criterion.config)
    again.set_data("audiocaps")
    again.load_state_dict(other.state_dict())
    assert len(again.audio_queue) == 4


@pytest.mark.parametrize("old", [False, True])
def test_queues_of_the_same_or_of_unnamed_data_stay(
    criterion, tiny_model, tiny_batch, old: bool, recwarn
) -> None:
    criterion.set_data("clotho")
    train(criterion, tiny_batch, 2)
    state = criterion.state_dict()
    if old:  # a checkpoint from before fingerprints
        del state["data_fingerprint"]
    other = MocoAtcAtm(tiny_model(seed=1), criterion.config)
    other.set_data("clotho")
    other.load_state_dict(state)
    assert len(other.audio_queue) == 8 and torch.equal(
        other.data_fingerprint, criterion.data_fingerprint
    )
    assert not [w for w in recwarn if "data set" in str(w.message)]


def test_a_step_runs_with_deterministic_algorithms_alone(tiny_model, tiny_batch) -> None:
    """Nothing in it is refused, and every run of it gives the same gradients."""
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=4))
    criterion.eval()  # so that the same hard negatives are drawn in every pass
    found = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            criterion.zero_grad()
            criterion(**tiny_batch(b=8))["loss"].backward()
            found.append([p.grad.clone() for p in criterion.parameters() if p.grad is not None])
        train(criterion.train(), tiny_batch, 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("fusion", ["blip", "albef"])
def test_a_head_that_shares_clips_changes_nothing(tiny_model, tiny_batch, monkeypatch, fusion):
    criterion = MocoAtcAtm(tiny_model(fusion=fusion), MocoAtcAtmConfig(atm_start=0, queue_size=0))
    criterion.eval()  # so that the same hard negatives are drawn in every pass
    found = []
    for shares in (True, False):
        monkeypatch.setattr(type(criterion.model.head), "shares_audio", shares)
        criterion.zero_grad()
        out = criterion(**tiny_batch(b=6))
        out["loss"].backward()
        found.append([out["loss_atm"], *(p.grad for p in criterion.model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
