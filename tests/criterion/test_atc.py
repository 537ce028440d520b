from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from atr_moco_plugin.criterion import atc_loss, atc_targets, contrastive_loss
from atr_moco_plugin.queue import EmbeddingQueue

FIXTURES = Path(__file__).parents[1] / "fixtures"


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(
        dtype
    )


@pytest.mark.parametrize("name", ["unique_ids", "shared_ids", "no_distill"])
def test_loss_gradients_and_queue_equal_the_independent_implementation(name: str) -> None:
    f = load_file(FIXTURES / f"atc_{name}.safetensors")
    audio = f["audio_proj"].clone().requires_grad_()
    text = f["text_proj"].clone().requires_grad_()
    temperature = f["temperature"].clone().requires_grad_()
    audio_m, text_m = (F.normalize(f[k], dim=-1) for k in ("audio_proj_m", "text_proj_m"))
    size, dim = f["queue_audio_before"].shape
    columns = torch.cat([f["ids"], f["queue_ids_before"]])

    loss = atc_loss(
        F.normalize(audio, dim=-1),
        F.normalize(text, dim=-1),
        audio_m,
        text_m,
        f["queue_audio_before"],
        f["queue_text_before"],
        f["ids"][:, None] == columns[None, :],
        temperature,
        float(f["alpha"]),
    )
    loss.backward()

    torch.testing.assert_close(loss, f["loss_atc"], atol=1e-5, rtol=0)
    torch.testing.assert_close(audio.grad, f["grad_audio_proj"], atol=1e-5, rtol=0)
    torch.testing.assert_close(text.grad, f["grad_text_proj"], atol=1e-5, rtol=0)
    torch.testing.assert_close(temperature.grad, f["grad_temperature"], atol=1e-4, rtol=1e-5)

    for modality, momentum in (("audio", audio_m), ("text", text_m)):
        queue = EmbeddingQueue(size, dim)
        state = queue.state_dict()
        state["embeddings"] = f[f"queue_{modality}_before"]
        state["clip_ids"] = state["caption_ids"] = f["queue_ids_before"]
        state["position"] = torch.tensor([size, int(f["ptr_before"])])
        queue.load_state_dict(state)
        queue.enqueue(momentum, f["ids"], f["ids"])
        after = queue.state_dict()
        torch.testing.assert_close(
            after["embeddings"], f[f"queue_{modality}_after"], atol=1e-5, rtol=0
        )
        assert torch.equal(after["clip_ids"], f["queue_ids_after"])
        assert int(after["position"][1]) == int(f["ptr_after"])


def oracle(
    audio, text, audio_m, text_m, audio_queue, text_queue, positives, tau, alpha, target_tau
) -> float:
    """The loss of one batch in float64, one query at a time; the targets have their own tau, since
    no gradient flows through them."""

    def direction(queries, queries_m, columns) -> float:
        total = 0.0
        for i, (q, q_m) in enumerate(zip(queries, queries_m, strict=False)):
            logits = torch.stack([(q * c).sum() / tau for c in columns])
            soft = torch.stack([(q_m * c).sum() / target_tau for c in columns]).exp()
            soft = soft / soft.sum()
            hard = positives[i].double() / positives[i].sum()
            target = alpha * soft + (1 - alpha) * hard
            log_prob = logits - logits.exp().sum().log()
            total -= float((target * log_prob).sum())
        return total / len(queries)

    a2t = direction(audio, audio_m, [*text_m, *text_queue])
    t2a = direction(text, text_m, [*audio_m, *audio_queue])
    return (a2t + t2a) / 2


@pytest.mark.parametrize(
    ("b", "k", "d"), [(1, 0, 3), (5, 0, 8), (4, 1, 8), (3, 17, 5), (7, 64, 16)]
)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_loss_and_gradients_equal_a_float64_oracle(b: int, k: int, d: int, alpha: float) -> None:
    rows = [unit(n, d, seed=seed, dtype=torch.float64) for seed, n in enumerate([b] * 4 + [k] * 2)]
    positives = torch.rand(b, b + k, generator=torch.Generator().manual_seed(9)) < 0.2
    positives[:, :b] |= torch.eye(b, dtype=torch.bool)
    tau = 0.07
    expected = oracle(*rows, positives, tau, alpha, tau)

    single = [x.float().requires_grad_(i < 2) for i, x in enumerate(rows)]
    temperature = torch.tensor([tau], requires_grad=True)
    loss = atc_loss(*single, positives, temperature, alpha)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-5, rel=1e-5)

    step = 1e-6
    shifted = [x.clone() for x in rows]
    shifted[0][0, 0] += step
    numeric = (oracle(*shifted, positives, tau, alpha, tau) - expected) / step
    assert float(single[0].grad[0, 0]) == pytest.approx(numeric, abs=1e-3)
    numeric = (oracle(*rows, positives, tau + step, alpha, tau) - expected) / step
    assert float(temperature.grad) == pytest.approx(numeric, abs=2e-2, rel=1e-3)


def test_ignored_columns_take_no_part() -> None:
    b, k, d = 4, 6, 8
    audio, text, audio_m, text_m = (unit(b, d, seed=i) for i in range(4))
    audio_queue, text_queue = unit(k, d, seed=5), unit(k, d, seed=6)
    positives = torch.cat([torch.eye(b, dtype=torch.bool), torch.zeros(b, k, dtype=torch.bool)], 1)
    positives[:, b + 2] = True
    ignore = torch.zeros_like(positives)
    ignore[:, b + 2] = True
    tau = torch.tensor(0.1)
    with_ignored = atc_loss(
        audio, text, audio_m, text_m, audio_queue, text_queue, positives, tau, 0.4, ignore=ignore
    )
    kept = [i for i in range(k) if i != 2]
    without = atc_loss(
        audio, text, audio_m, text_m, audio_queue[kept], text_queue[kept],
        positives[:, [*range(b), *(b + i for i in kept)]], tau, 0.4,
    )  # fmt: skip
    torch.testing.assert_close(with_ignored, without)


def test_momentum_embeddings_and_queues_get_no_gradient() -> None:
    rows = [unit(4, 8, seed=i).requires_grad_() for i in range(6)]
    atc_loss(*rows, torch.eye(4, 8, dtype=torch.bool), torch.tensor(0.1), 0.4).backward()
    assert all(x.grad is not None for x in rows[:2])
    assert all(x.grad is None for x in rows[2:])


def test_targets_share_the_mass_of_a_row() -> None:
    targets = atc_targets(torch.tensor([[True, False, True], [False, True, False]]))
    assert targets.tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]


def test_permuting_the_batch_leaves_the_loss() -> None:
    b, k, d = 6, 5, 8
    rows = [unit(b, d, seed=i) for i in range(4)]
    queues = unit(k, d, seed=7), unit(k, d, seed=8)
    clips = torch.tensor([1, 2, 1, 3, 4, 2])
    queued = torch.tensor([3, 9, 1, 8, 7])
    order = torch.randperm(b, generator=torch.Generator().manual_seed(0))

    def loss(index: torch.Tensor) -> torch.Tensor:
        ids = clips[index]
        positives = ids[:, None] == torch.cat([ids, queued])[None, :]
        return atc_loss(*(x[index] for x in rows), *queues, positives, torch.tensor(0.07), 0.4)

    torch.testing.assert_close(loss(torch.arange(b)), loss(order))


def test_loss_is_float32_under_autocast() -> None:
    rows = [unit(4, 8, seed=i) for i in range(6)]
    positives = torch.eye(4, 8, dtype=torch.bool)
    expected = atc_loss(*rows, positives, torch.tensor(0.01), 0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = atc_loss(*rows, positives, torch.tensor(0.01), 0.4)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0, rtol=0)


def test_wrong_shape_of_positives_is_named() -> None:
    rows = [unit(4, 8, seed=i) for i in range(6)]
    with pytest.raises(ValueError, match=r"shape \(4, 4\), expected \(4, 8\)"):
        atc_loss(*rows, torch.eye(4, dtype=torch.bool), torch.tensor(0.1), 0.4)


def test_contrastive_loss_is_the_symmetric_cross_entropy() -> None:
    audio, text = unit(5, 8, seed=0), unit(5, 8, seed=1)
    eye = torch.eye(5, dtype=torch.bool)
    loss = contrastive_loss(audio, text, audio, text, eye, torch.tensor(0.07))
    logits = audio @ text.T / 0.07
    labels = torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(loss, expected)
