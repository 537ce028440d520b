"""Sums that follow a queue, beside those over its rows."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank import RankLogger, alignment, modality_gap, rank_report, uniformity
from atr_moco_plugin.rank.moments import PairDistance, QueueMoments, QueueUniformity
from atr_moco_plugin.rank.spectrum import singular_values

DIM = 4


def batch(n: int, seed: int, dim: int = DIM) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = normalize(torch.randn(n, dim, generator=generator) + 0.5, dim=1)
    return x, torch.arange(n), torch.arange(n)


def write(queues: list[EmbeddingQueue], n: int, seed: int) -> None:
    for k, queue in enumerate(queues):
        queue.enqueue(*batch(n, 2 * seed + k, queue.dim))


def assert_sums_are_right(queues: list[EmbeddingQueue], running: list) -> None:
    """The running sums read what the rows give, on both queues and on their pair."""
    a, b = (queue.valid[0] for queue in queues)
    for x, moments, even in zip((a, b), running[:2], running[2:4], strict=True):
        for center, values in enumerate(moments.read().spectra()):
            expected = singular_values(x, center=bool(center))
            scale = float(singular_values(x)[0])
            torch.testing.assert_close(values, expected, atol=1e-6 * scale, rtol=0)
        assert even.read() == pytest.approx(uniformity(x), abs=1e-6)
    gap = running[0].read().mean_direction() - running[1].read().mean_direction()
    assert float(gap.norm()) == pytest.approx(modality_gap(a, b), abs=1e-6)
    assert running[4].read() == pytest.approx(alignment(a, b), abs=1e-6)


events = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 9)),
    st.tuples(st.just("write"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["load", "save", "clear", "grow", "broken"]), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(6, 20), events=st.lists(events, max_size=25), every=st.integers(1, 3))
# The zeros in place of a broken row are written over: such a row has no similarity to itself.
@example(
    size=16,
    events=[("clear", 0), ("broken", 0), ("write", 6), ("write", 8), ("write", 2)],
    every=1,
)
def test_sums_follow_whatever_happens_to_the_queues(size: int, events, every: int) -> None:
    queues = [EmbeddingQueue(size, DIM, max_size=size + 6) for _ in range(2)]
    running = [*map(QueueMoments, queues), *map(QueueUniformity, queues), PairDistance(*queues)]
    write(queues, size, seed=1000)
    saved = [copy.deepcopy(queue.state_dict()) for queue in queues]
    for step, (event, n) in enumerate(events):
        if event == "write":
            write(queues, n, seed=step)
        elif event == "broken":
            x, *ids = batch(2, seed=step)
            x[1] = torch.nan
            for queue in queues:
                queue.enqueue(x, *ids)
        for k, queue in enumerate(queues):
            if event == "load":
                queue.load_state_dict(saved[k])
            elif event == "save":
                queue.state_dict()
            elif event == "clear":
                queue.clear()
            elif event == "grow" and len(queue) == queue.size:
                queue.grow(min(queue.size + 2, queue.max_size))
        if step % every == 0 and len(queues[0]) > DIM:
            assert_sums_are_right(queues, running)


def test_a_step_costs_no_pass_over_the_queue_until_it_is_due(monkeypatch) -> None:
    queues = [EmbeddingQueue(40, DIM) for _ in range(2)]
    running = [*map(QueueMoments, queues), *map(QueueUniformity, queues), PairDistance(*queues)]
    write(queues, 40, 0)
    sums = []
    for sums_of in running:
        made = sums_of.sum_rows
        monkeypatch.setattr(sums_of, "sum_rows", lambda made=made: sums.append(0) or made())

    def steps(count: int, n: int = 4) -> int:
        sums.clear()
        for step in range(count):
            write(queues, n, step)
            for sums_of in running:
                sums_of.read()
        return len(sums)

    assert steps(1) == 5  # after a whole queue was written, they are not kept
    assert steps(1) == 5 and steps(100) == 0
    queues[0].state_dict()
    assert steps(1) == 3  # of the one queue, and the pair
    assert steps(10) == 0
    for queue in queues:
        queue.state_dict()
    for sums_of in running:
        sums_of.read()  # nothing was written since: this is not where following begins
    assert steps(1) == 5 and steps(10) == 0
    assert 0 < steps(160) <= 10  # the refresh after 16 rewrites
    assert steps(5, n=30) == 25  # logging rarer than half a rewrite sums the rows


@pytest.mark.parametrize("n", [1, 7, 30])
def test_equal_rows_have_no_rank_left_when_centred(n: int) -> None:
    queue = EmbeddingQueue(60, 8)
    logger = RankLogger({"audio": queue})
    queue.enqueue(*batch(60, 0, dim=8))
    logger.log(0)
    same = normalize(torch.arange(1.0, 9.0), dim=0)[None]
    ids = torch.arange(n)
    for step in range(1, 1 + 2 * -(-60 // n)):
        queue.enqueue(same.expand(n, 8), ids, ids)
        record = logger.log(step)["sources"]["audio"]
    assert record["centered"]["rankme"] == record["centered"]["count"] == 0
    assert record["raw"]["rankme"] == pytest.approx(1, abs=1e-4)
    assert record["uniformity"] == pytest.approx(0, abs=1e-9)


def test_the_logger_reads_on_queues_what_it_reads_on_their_rows() -> None:
    queues = {name: EmbeddingQueue(50, DIM) for name in ("audio", "text")}
    logger = RankLogger(queues)
    rows = RankLogger({name: lambda q=queue: q.valid[0] for name, queue in queues.items()})
    for step in range(1, 40):
        write(list(queues.values()), 1 + step % 7, step)
        followed, expected = logger.scalars(logger.log(step)), rows.scalars(rows.log(step))
        assert {k: followed[k] for k in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_broken_row_is_named_and_may_be_repaired() -> None:
    queue = EmbeddingQueue(20, DIM)
    logger = RankLogger({"audio": queue})
    queue.enqueue(*batch(20, 0))
    queue.embeddings[3] = torch.nan
    with pytest.raises(ValueError, match="source 'audio': 1 of 20 embedding rows are not finite"):
        logger.log(0)
    queue.embeddings[3] = 0.5
    report = rank_report(queue.valid[0])
    assert logger.log(1)["sources"]["audio"]["raw"]["rankme"] == pytest.approx(report.rankme)


@pytest.mark.parametrize("log_first", [True, False])
def test_a_resumed_run_logs_the_same_to_the_last_bit(tmp_path: Path, log_first: bool) -> None:
    def run(path: Path, steps: range, state: dict | None, saves: tuple[int, ...] = (7, 14)) -> dict:
        queues = nn.ModuleDict({name: EmbeddingQueue(64, 16) for name in ("audio", "text")})
        logger = RankLogger(dict(queues.items()), path)
        if state is not None:
            queues.load_state_dict(state)
        states = {}
        for step in steps:
            write(list(queues.values()), 5, step)
            if log_first:
                logger.log(step)
            if step in saves:
                states[step] = copy.deepcopy(queues.state_dict())
            if not log_first:
                logger.log(step)
        return states

    states = run(tmp_path / "whole", range(30), None)
    expected = (tmp_path / "whole").read_text().splitlines()
    for start in (7, 14):
        run(tmp_path / f"from{start}", range(start + 1, 30), states[start])
        assert (tmp_path / f"from{start}").read_text().splitlines() == expected[start + 1 :]
    assert json.loads(expected[-1])["sources"]["text"]["rows"] == 64
    # Saving is what makes it so: where it changed nothing, the sums would differ in a last bit.
    run(tmp_path / "unsaved", range(30), None, saves=())
    assert (tmp_path / "unsaved").read_text().splitlines() != expected


def test_copies_follow_copies() -> None:
    queue = EmbeddingQueue(12, DIM)
    queue.enqueue(*batch(12, 0))
    moments = QueueMoments(queue)
    for copied in (copy.deepcopy(moments), pickle.loads(pickle.dumps(moments))):
        (other,) = copied.queues
        for seed in (1, 2):
            other.enqueue(*batch(3, seed))
            expected = other.valid[0].double()
            torch.testing.assert_close(copied.read().gram, expected.T @ expected)
    torch.testing.assert_close(moments.read().total, queue.valid[0].double().sum(0))


def test_queues_of_two_sizes_and_one_queue_twice_are_measured_on_their_rows() -> None:
    large, small = EmbeddingQueue(16, DIM), EmbeddingQueue(8, DIM)
    logger = RankLogger({"audio": large, "text": small})
    twice = RankLogger({"audio": large, "text": large})
    for step in range(20):
        write([large, small], 1 if step < 7 else 2, step)
        pair = logger.log(step)["pairs"].get("audio_text") if step else None
        if pair and pair["alignment"] is not None:
            expected = alignment(large.valid[0], small.valid[0])
            assert pair["alignment"] == pytest.approx(expected, abs=1e-6)
        if step > 5:
            assert twice.log(step)["pairs"]["audio_text"]["alignment"] == 0


def test_a_large_queue_is_sampled_for_its_uniformity() -> None:
    queue = EmbeddingQueue(100, DIM)
    even = QueueUniformity(queue, max_rows=32)
    for step in range(60):
        queue.enqueue(*batch(6, step))
        if len(queue) > 1:
            assert even.read() == pytest.approx(uniformity(queue.valid[0], max_rows=32), abs=1e-9)
