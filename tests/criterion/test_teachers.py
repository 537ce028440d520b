from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    SiglipConfig,
)
from atr_moco_plugin.criterion.positives import check_shared_clips
from atr_moco_plugin.criterion.teachers import RowsById, Teacher, Teachers, soft_cross_entropy
from atr_moco_plugin.errors import InputError

ITEMS = 40  # ids of ten batches of `linear_batch`
TAUGHT = {"teachers": ["a", "b"], "teacher_temperature": 0.2}
NONE: dict[str, Any] = {"teachers": [], "teacher_temperature": 0.05}
KINDS: dict[str, tuple[Any, Any]] = {
    "atc": (Atc, AtcConfig),
    "moco_atc": (MocoAtc, MocoAtcConfig),
    "moco_atc_atm": (MocoAtcAtm, MocoAtcAtmConfig),
}


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def teacher(seed: int, width: int) -> Teacher:
    """Its rows are in an order of their own."""
    ids = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(seed))
    tables = (RowsById(ids, unit(ITEMS, width, seed=seed + i)) for i in (1, 2))
    return Teacher(f"t{seed}", *tables)


def build(name: str, members: Sequence[Teacher] = (), **options: Any) -> Any:
    kind, config_class = KINDS[name]
    if name != "atc":
        options = {"queue_size": 12, **options}
    config = config_class(**{**TAUGHT, **options})
    criterion = kind(LinearModel(), config).train()
    if config.teachers:
        members = members or [teacher(10, 3), teacher(20, 7)]
        criterion.set_teachers(Teachers(members, config))
    return criterion


def step(criterion: Any, seed: int) -> dict[str, Tensor]:
    """A pass and a step of plain descent."""
    criterion.zero_grad()
    losses = criterion(**linear_batch(seed))
    losses["loss"].backward()
    with torch.no_grad():
        for p in criterion.parameters():
            if p.grad is not None:
                p -= (0.05 if p is not criterion.temperature else 1e-4) * p.grad
    criterion.on_optimizer_step()
    return losses


def oracle(
    a: Tensor, u: Tensor, columns_a: Tensor, columns_u: Tensor, ids: Tensor, tau: Tensor,
    teachers: Sequence[Teacher], ignore: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The cross-entropy in float64, one row at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(a)):
        for query, columns, rows, others in (
            (a[i], columns_u, "clips", "captions"),
            (u[i], columns_a, "captions", "clips"),
        ):
            soft = torch.zeros(len(columns), dtype=torch.float64)
            for t in teachers:
                own = getattr(t, rows).find(ids[i : i + 1])[0].double()
                soft += (getattr(t, others).find(ids).double() @ own) / len(teachers) / 0.2
            kept = torch.ones(len(columns), dtype=torch.bool)
            if ignore is not None:
                kept = ~ignore[i]
            logits = (columns @ query / tau)[kept]
            target = soft[kept].exp() / soft[kept].exp().sum()
            total = total - (target * (logits - logits.exp().sum().log())).sum()
    return total / (2 * len(a))


@pytest.mark.parametrize(
    ("name", "of_queue"),
    [
        ("atc", {}),
        ("moco_atc", {"alpha": 0.4}),
        ("moco_atc", {"queue_positives": "ignore"}),
        ("moco_atc", {"columns": "online"}),
        ("moco_atc", {"columns": "both"}),
        ("moco_atc", {"columns": "online", "keys": "online", "alpha": 0.0}),
        ("moco_atc", {"queue_size": 0}),
    ],
)
def test_loss_and_gradients_equal_a_float64_oracle(name: str, of_queue: dict[str, Any]) -> None:
    members = [teacher(10, 3), teacher(20, 7)]
    weights = {"supervised_weight": 0.3, "teacher_weight": 1.7}
    criterion = build(name, members, **weights, **of_queue)
    plain = build(name, **NONE, **of_queue)
    if name != "atc":
        for seed in range(2):  # fill the queue, and move the copies away from the model
            step(criterion, seed)
    batch = linear_batch(1)  # its clips are in the queue already
    plain.load_state_dict(
        {k: v.clone() for k, v in criterion.state_dict().items() if k != "teachers_digest"}
    )

    double = {"audio": copy.deepcopy(criterion.model.audio), "text": None}
    double["text"] = copy.deepcopy(criterion.model.text)
    a, u = (
        F.normalize(x.projection.double()(x.encoder.double()(batch[k]["x"].double())), dim=1)
        for k, x in double.items()
    )
    tau = criterion.temperature.detach().double().requires_grad_()
    columns, ids = [a, u], batch["clip_ids"]
    ignore = None
    if name != "atc":
        if of_queue.get("columns") != "online":
            columns = [
                getattr(criterion, f"{k}_m")(**batch[k])[0].detach().double()
                for k in ("audio", "text")
            ]
        columns = [
            torch.cat([x, q.valid[0].clone().double()])
            for x, q in zip(columns, criterion.queues.values(), strict=True)
        ]
        ids = torch.cat([ids, criterion.audio_queue.ids[0].clone()])
        if "queue_positives" in of_queue:
            ignore = ids[None] == ids[:4, None]
            ignore[:, :4] = False
    expected = oracle(a, u, *columns, ids, tau, members, ignore)
    supervised = plain(**batch)["loss"]
    criterion.zero_grad()
    found = criterion(**batch)
    assert_close(found["loss_teacher"].double(), expected.detach(), atol=1e-6, rtol=1e-6)
    total = 0.3 * supervised + 1.7 * found["loss_teacher"]
    assert_close(found["loss"], total, atol=1e-6, rtol=1e-6)

    found["loss"].backward()
    supervised.backward()
    expected.backward()
    of_both = [
        (criterion.temperature, plain.temperature, tau),
        *(
            (p, q, r)
            for k in ("audio", "text")
            for p, q, r in zip(
                getattr(criterion.model, k).parameters(),
                getattr(plain.model, k).parameters(),
                double[k].parameters(),
                strict=True,
            )
        ),
    ]
    for p, q, r in of_both:
        assert_close(p.grad.double(), 0.3 * q.grad.double() + 1.7 * r.grad, atol=1e-5, rtol=1e-4)


def test_a_teacher_that_is_the_student_leaves_nothing_to_learn() -> None:
    model, batch = LinearModel(), linear_batch(0)
    with torch.no_grad():
        a, u = (getattr(model, k)(**batch[k])[0] for k in ("audio", "text"))
    same = Teacher("same", RowsById(batch["clip_ids"], a), RowsById(batch["caption_ids"], u))
    config = AtcConfig(
        teachers=["same"], teacher_temperature=0.07, temperature=0.07, supervised_weight=0.0
    )
    criterion = Atc(model, config).train()
    criterion.set_teachers(Teachers([same], config))
    criterion(**batch)["loss"].backward()
    for name, p in criterion.named_parameters():
        if p.grad is not None:
            # That of the temperature is a sum of terms of size 1 / tau.
            assert p.grad.abs().max() < (1e-5 if name == "temperature" else 1e-6), name


def test_a_column_may_be_overwritten_before_the_backward_pass() -> None:
    query, column = unit(3, 4, seed=0).requires_grad_(), unit(5, 4, seed=1)
    online = unit(2, 4, seed=2).requires_grad_()
    targets, tau = unit(3, 7, seed=3).softmax(dim=1), torch.tensor([0.1], requires_grad=True)
    before = torch.cat([online, column.clone()])
    expected = F.cross_entropy(query @ before.T / tau, targets)
    wanted = torch.autograd.grad(expected, [query, online, tau])
    found = soft_cross_entropy(query, [online, column], targets, tau)
    column.zero_()
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, [query, online, tau]), wanted)


@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_chunks_change_nothing(name: str, chunk_size: int) -> None:
    whole, chunked = build(name), build(name)
    chunked.chunk_size = chunk_size
    for seed in range(3):
        assert_close(step(chunked, seed), step(whole, seed), atol=1e-6, rtol=1e-5, equal_nan=True)
    for p, q in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert_close(q, p, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_stays_float32_under_autocast(name: str) -> None:
    criterion, plain = build(name), build(name)
    plain.load_state_dict(criterion.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(**linear_batch(0))
    assert all(x.dtype == torch.float32 for x in found.values())
    assert set(found) == set(criterion.measures)
    # Only the towers were in bfloat16.
    assert_close(found["loss_teacher"], plain(**linear_batch(0))["loss_teacher"], atol=0.3, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_run_goes_on_to_the_last_bit(name: str) -> None:
    whole = build(name)
    for seed in range(3):
        step(whole, seed)
    state = copy.deepcopy(whole.state_dict())
    resumed = build(name)
    resumed.load_state_dict(state)
    for seed in range(3, 6):
        assert_close(step(resumed, seed), step(whole, seed), atol=0, rtol=0, equal_nan=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize("name", KINDS)
def test_a_state_says_whom_it_has_learned_from(name: str) -> None:
    state = build(name).state_dict()
    # The order of the teachers does not matter, a bit of one does.
    build(name, [teacher(20, 7), teacher(10, 3)]).load_state_dict(state)
    other = build(name, [teacher(10, 3), teacher(30, 7)])
    with pytest.raises(InputError, match="other `teachers`"):
        other.load_state_dict(state)
    kind, config_class = KINDS[name]
    config = config_class(**TAUGHT, **({} if name == "atc" else {"queue_size": 12}))
    late = kind(LinearModel(), config)
    late.load_state_dict(state)  # before it has teachers
    with pytest.raises(InputError, match="other `teachers`"):
        late.set_teachers(Teachers([teacher(1, 3)], config))
    plain = build(name, **NONE)
    with pytest.raises(InputError, match="the criterion has none"):
        plain.load_state_dict(state)
    with pytest.warns(UserWarning, match="has not learned from `teachers`"):
        build(name).load_state_dict(plain.state_dict())
    assert "teachers_digest" not in plain.state_dict()
    assert "loss_teacher" not in plain.measures


def test_a_row_of_the_queue_that_was_not_finite_is_no_column_of_teachers() -> None:
    criterion = build("moco_atc")
    step(criterion, 0)
    for queue in criterion.queues.values():
        rows = torch.full((1, 4), math.nan)
        ids = torch.tensor([ITEMS - 1])
        queue.enqueue(rows, ids, ids, finite=torch.tensor([False]))
    spoiled = copy.deepcopy(criterion)
    losses = spoiled(**linear_batch(1))
    for queue in criterion.queues.values():
        assert int(queue.ids[0][len(queue) - 1]) == -1
    assert losses["loss"].isfinite() and losses["loss_teacher"].isfinite()
    # As if the row were not there.
    without = build("moco_atc")
    step(without, 0)
    assert_close(losses["loss_teacher"], without(**linear_batch(1))["loss_teacher"])


@pytest.mark.parametrize("name", KINDS)
def test_the_contrastive_loss_is_shown_without_teachers(name: str) -> None:
    taught, alone = build(name), build(name, **NONE)
    losses, plain = taught(**linear_batch(0)), alone(**linear_batch(0))
    assert_close(losses["loss_atc"], plain["loss_atc"])
    assert losses["loss"] != plain["loss"]


def test_evaluation_asks_no_teacher() -> None:
    criterion = build("atc").eval()
    strange = linear_batch(50)
    found = criterion(**strange)
    assert found["loss_teacher"].isnan() and found["loss"] == found["loss_atc"]


def test_rows_of_one_id_are_averaged() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    table = RowsById(torch.tensor([7, 7, 3]), rows)
    assert_close(table.find(torch.tensor([3, 7])), torch.tensor([[0.0, -1.0], [0.5**0.5] * 2]))
    assert table.missing(torch.tensor([7, 8])).tolist() == [8]
    turned = RowsById(torch.tensor([3, 7, 7]), rows[[2, 1, 0]])
    assert turned.digest == table.digest
    assert RowsById(torch.tensor([3, 7]), rows[:2]).digest != table.digest


def test_a_digest_is_of_who_has_which_row() -> None:
    ids, rows = torch.tensor([3, 7, 9]), unit(3, 4, seed=0)
    digest = RowsById(ids, rows).digest
    assert RowsById(ids[[2, 0, 1]], rows[[2, 0, 1]]).digest == digest
    assert RowsById(ids[[2, 0, 1]], rows).digest != digest


def test_bad_input_is_one_sentence() -> None:
    for options, message in (
        ({"teacher_temperature": 0.0}, "`teacher_temperature` is 0.0, expected above 0"),
        ({"teacher_temperature": -1.0}, "`teacher_temperature` is -1.0, expected above 0"),
        ({"teacher_weight": -1.0}, "`teacher_weight` is -1.0"),
        ({"teacher_weight": 0.0, "supervised_weight": 0.0}, "are both 0"),
        ({"teachers": ["a", "b", "a"]}, "`teachers` has a twice"),
        ({"teachers": []}, "`teacher_temperature` is 0.2, but there are no `teachers`"),
    ):
        with pytest.raises(InputError, match=message):
            AtcConfig(**{**TAUGHT, **options})
    with pytest.raises(InputError, match=r"are named, but .* call `atr_moco_plugin.teaching"):
        Atc(LinearModel(), AtcConfig(**TAUGHT)).train()(**linear_batch(0))
    with pytest.raises(InputError, match=r"t10 has no embedding of the clip with the id 200"):
        build("moco_atc")(**linear_batch(50))
    with pytest.raises(InputError, match="no `teachers` in its options"):
        Atc(LinearModel(), AtcConfig()).set_teachers(Teachers([teacher(1, 2)], AtcConfig()))


def test_who_cannot_use_teachers_refuses_them() -> None:
    with pytest.raises(InputError, match="`criterion.teachers` is not known"):
        build_config(SiglipConfig, TAUGHT, "criterion")
    criterion, batch = build("moco_atc"), linear_batch(0)
    mixed = torch.stack([batch["clip_ids"], torch.full((4,), -1)], dim=1)
    with pytest.raises(InputError, match="not of mixtures of two clips"):
        criterion(**{**batch, "clip_ids": mixed, "caption_ids": mixed})
    with pytest.raises(InputError, match="not of mixtures of two clips"):
        check_shared_clips(criterion, 1, mixes=True)
    check_shared_clips(criterion, 1, mixes=False)
