"""Two and four processes with parts of a batch do what one process does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

sys.path.insert(0, str(Path(__file__).parent))
import training

COUNTS = (2, 4)
pytestmark = pytest.mark.slow
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two and then four processes left what they found."""
    folder = tmp_path_factory.mktemp("training")
    command = [sys.executable, training.__file__, str(folder), *map(str, COUNTS)]
    result = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, timeout=1_200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder


def left_in(folder: Path, count: int) -> Found:
    return [torch.load(folder / f"{i}_of_{count}.pt", weights_only=True) for i in range(count)]


@pytest.fixture(scope="module", params=COUNTS)
def ranks(request: pytest.FixtureRequest, folder: Path) -> Found:
    """What each of the processes found, of two and of four."""
    return left_in(folder, request.param)


@pytest.fixture(scope="module")
def two(folder: Path) -> Found:
    """What each of two processes found."""
    return left_in(folder, 2)


@pytest.fixture(scope="module")
def single() -> dict[str, dict[str, Any]]:
    """What one process finds, with the weights it began with."""
    found = {}
    for name in training.CASES:
        criterion = training.build(name)
        initial = {key: value.clone() for key, value in criterion.state_dict().items()}
        found[name] = {"initial": initial, **training.train(criterion)}
    return found


@pytest.fixture(params=["ddp", "fsdp"])
def wrapper(request: pytest.FixtureRequest) -> str:
    if request.param not in training.WRAPPERS:
        pytest.skip("FSDP is applied as fairseq2 does it, and fairseq2 is not installed")
    return request.param


def found_by(ranks: Found, wrapper: str, name: str) -> Found:
    if name not in training.cases(wrapper, len(ranks)):
        pytest.skip("one of the cases that take minutes: ALL_CASES=1 in the environment runs them")
    return [x[f"{wrapper}.{name}"] for x in ranks]


def assert_all_close(found: Found, expected: dict[str, Any], **tolerance: float) -> None:
    for rank in training.put_together(found, expected):
        assert rank.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(rank[key], value, **tolerance, msg=lambda m, key=key: f"{key}: {m}")


def in_logits(gradients: dict[str, Any]) -> dict[str, Any]:
    """Gradients with that of the temperature in units of the logits, which are similarities over
    it: a sum of large terms that may nearly cancel."""
    return {k: 0.07 * x if k.endswith("temperature") else x for k, x in gradients.items()}


@pytest.mark.parametrize("name", training.CASES)
def test_several_processes_train_as_one(ranks: Found, single, wrapper: str, name: str) -> None:
    expected, found = single[name], found_by(ranks, wrapper, name)
    losses = torch.stack([x["losses"] for x in found])
    assert_close(losses.mean(dim=0), expected["losses"], atol=1e-5, rtol=1e-5)
    # The parts hold other queries, so a mean that left one of them out would show.
    # Without a negative anywhere a rival has no loss.
    some = expected["losses"] != 0
    assert (losses[0] - losses[1]).abs()[some].min() > 1e-4
    gradients, whole = [in_logits(x["gradients"]) for x in found], in_logits(expected["gradients"])
    assert_all_close(gradients, whole, atol=1e-5, rtol=1e-4)
    assert_all_close([x["state"] for x in found], expected["state"], atol=1e-5, rtol=1e-5)
    assert expected["gradients"]["0.model.audio.projection.weight"].abs().max() > 0.02


@pytest.mark.parametrize("name", training.CASES)
def test_the_training_moves_weights_copies_queues_and_temperature(single, name: str) -> None:
    initial, state = single[name]["initial"], single[name]["state"]
    moved = {
        key: (value - initial[key]).abs().max()
        for key, value in state.items()
        if value.shape == initial[key].shape  # a table grows
    }
    assert moved["model.audio.projection.weight"] > 0.003
    if name.startswith("m_ltm"):
        assert moved["metric"] > 1e-6  # at the rate of the temperature
    else:
        assert moved["temperature"] > 1e-5
    if name == "sogclr":
        assert len(state["clip_sums.ids"]) > 100 and state["num_steps"] == training.STEPS
    if name.startswith("moco"):
        if training.build(name).momentum_copies:
            assert moved["audio_m.module.projection.weight"] > 0.01
        written = training.ROWS % training.QUEUE
        assert state["text_queue.position"][:2].tolist() == [training.QUEUE, written]
        assert state["num_steps"] == training.STEPS


@pytest.mark.parametrize("name", training.CASES)
def test_ranks_hold_the_same_to_the_last_bit(ranks: Found, single, wrapper: str, name: str) -> None:
    expected = single[name]["state"]
    states = [x["state"] for x in found_by(ranks, wrapper, name)]
    states = training.put_together(states, expected)
    for key, value in states[0].items():
        assert all(torch.equal(value, state[key]) for state in states[1:]), key
        if key.endswith(("clip_ids", "caption_ids", "position", "num_steps", "sums.keys")):
            assert torch.equal(value, expected[key]), key


def test_parts_differ_in_length(ranks: Found) -> None:
    # 2,560 samples are one step of tokens: the longest clips differ by at least one.
    shapes = torch.stack([x["ddp.moco_atc_atm"]["shapes"] for x in ranks])
    for lengths in ((shapes[..., 0] - 400) // 2560, shapes[..., 1]):
        assert (lengths != lengths[0]).any(dim=0).sum() > 2


def test_a_step_takes_few_exchanges(two: Found) -> None:
    # The sizes, all small tensors, and of each tensor with a gradient one more and one back.
    expected = {
        "atc": 4,
        "dcl": 4,
        "m_ltm": 4,
        "m_ltm_full": 4,
        "siglip": 4,
        "sogclr": 5,
        "moco_atc": 2,
        "moco_atc_atm": 4,
        "moco_atc_atm_albef": 6,
        "moco_atc_online": 4,
        "moco_atc_both": 4,
        "moco_atc_atm_online": 6,
    }
    expected |= {f"{name}_chunks": expected[name] for name in ("atc", "moco_atc_atm")}
    assert [rank["exchanges"] for rank in two] == [expected] * 2


def test_chunks_of_a_sharded_model_are_refused(two: Found) -> None:
    if "fsdp" not in training.WRAPPERS:
        pytest.skip("fairseq2 is not installed")
    for rank in two:
        assert "Gradient caching does not go with FSDP" in rank["sharded_chunks"]


def test_a_queue_spoilt_on_one_rank_stops_every_rank(ranks: Found, wrapper: str) -> None:
    messages = [x[f"{wrapper}.spoilt"] for x in ranks]
    assert messages == messages[:1] * len(ranks)
    assert messages[0].startswith(
        "The text queue of process(es) 1 differs from that of process 0 after 20 optimizer steps"
    )


def test_rows_that_changed_places_and_a_state_of_one_rank_are_found(two: Found) -> None:
    # The state that rank 1 alone loaded is found in the first step.
    for name, steps in (("swapped", 4), ("loaded", 0)):
        first, second = (rank[name] for rank in two)
        assert first == second
        start = "The audio queue of process(es) 1 differs from that of process 0"
        assert f"{start} after {steps} optimizer steps" in first


def test_negatives_of_the_own_batch_keep_the_ranks_together(two: Found) -> None:
    found = [x["own_batch"] for x in two]
    assert all(torch.isfinite(x["losses"]).all() for x in found)
    for key, value in found[0]["state"].items():
        assert all(torch.equal(value, x["state"][key]) for x in found[1:]), key


def test_queues_grow_on_both_ranks_alike(two: Found) -> None:
    states = [x["auto"] for x in two]
    for modality in ("audio", "text"):
        for name in ("embeddings", "clip_ids", "caption_ids", "position"):
            first, *others = (state[f"{modality}_queue.{name}"] for state in states)
            assert all(torch.equal(first, x) for x in others)
        count, _, size, _ = first.tolist()
        assert size > training.AUTO.queue_min and count > training.AUTO.queue_min
