"""The keys of a fixed batch: those of the queue's encoder, and no trace of the asking."""

from __future__ import annotations

import torch

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.criterion.probe import KeyProbe
from atr_moco_plugin.rank import RankLogger


def trained(tiny_model, tiny_batch, probed: bool) -> tuple[list[float], MocoAtc]:
    """Losses of a few steps with dropout, and the criterion."""
    model = tiny_model()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.3
    criterion = MocoAtc(model, MocoAtcConfig(queue_size=8, momentum=0.5)).train()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
    criterion.attach(optimizer)
    probe = KeyProbe(criterion, **tiny_batch(b=3, seed=99)) if probed else None
    logger = RankLogger(criterion.queues, probe=probe, probe_every=1)
    torch.manual_seed(5)
    losses = []
    for step in range(4):
        loss = criterion(**tiny_batch(seed=step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logger.log(step + 1)
        losses.append(float(loss.detach()))
    return losses, criterion


def test_a_probe_leaves_no_trace(tiny_model, tiny_batch) -> None:
    (plain, one), (probed, other) = (trained(tiny_model, tiny_batch, x) for x in (False, True))
    assert plain == probed
    for (name, x), y in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_keys_are_those_that_would_be_enqueued(tiny_model, tiny_batch) -> None:
    _, criterion = trained(tiny_model, tiny_batch, False)
    batch = tiny_batch(b=3, seed=99)
    keys = KeyProbe(criterion, **batch)()
    criterion(**batch)
    for name, queue in criterion.queues.items():
        torch.testing.assert_close(keys[name], queue.newest(3), atol=1e-6, rtol=0)
        assert not keys[name].requires_grad


def test_towers_in_training_are_asked_in_eval_mode_and_left_as_they_were(
    tiny_model, tiny_batch
) -> None:
    model = tiny_model()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.9
    config = MocoAtcConfig(queue_size=8, keys="online", columns="online", alpha=0.0)
    criterion = MocoAtc(model, config).train()
    model.text.encoder.eval()  # as a frozen part stays
    modes = [part.training for part in criterion.modules()]
    probe = KeyProbe(criterion, **tiny_batch(b=3, seed=99))
    state = torch.get_rng_state()
    keys = probe()
    assert all(torch.equal(x, y) for x, y in zip(keys.values(), probe().values(), strict=True))
    assert [part.training for part in criterion.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_other_items_have_another_fingerprint(tiny_model, tiny_batch) -> None:
    criterion = MocoAtc(tiny_model(), MocoAtcConfig(queue_size=8))
    names = [KeyProbe(criterion, **tiny_batch(seed=seed)).fingerprint for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
