from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue


def rows(queue: EmbeddingQueue) -> list[tuple[tuple[float, ...], int, int]]:
    embeddings, clips, captions = queue.valid
    return sorted(
        (tuple(e), c, t)
        for e, c, t in zip(embeddings.tolist(), clips.tolist(), captions.tolist(), strict=True)
    )


def batch(first: int, n: int, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.arange(first, first + n)
    return ids[:, None].float().expand(n, dim).contiguous(), ids, ids + 10_000


@given(
    size=st.integers(0, 17),
    batches=st.lists(st.integers(0, 40), max_size=12),
    dim=st.sampled_from([1, 3]),
)
def test_behaves_as_a_plain_list(size: int, batches: list[int], dim: int) -> None:
    queue, plain, first = EmbeddingQueue(size, dim), [], 0
    for n in batches:
        embeddings, clips, captions = batch(first, n, dim)
        queue.enqueue(embeddings, clips, captions)
        plain += [((float(i),) * dim, i, i + 10_000) for i in range(first, first + n)]
        plain = plain[-size:] if size else []
        first += n
        assert len(queue) == len(plain)
        assert rows(queue) == sorted(plain)
        for newest in range(len(plain) + 1):
            taken = queue.valid[1][queue.newest_rows(newest)]
            assert sorted(taken.tolist()) == [row[1] for row in plain[len(plain) - newest :]]


@given(
    size=st.integers(1, 12),
    other=st.integers(0, 17),
    batches=st.lists(st.integers(0, 9), max_size=6),
)
def test_state_goes_on_exactly_and_another_size_keeps_the_newest(
    size: int, other: int, batches: list[int]
) -> None:
    queue, total = EmbeddingQueue(size, 2), 0
    for n in batches:
        queue.enqueue(*batch(total, n, 2))
        total += n
    same, resized = EmbeddingQueue(size, 2), EmbeddingQueue(other, 2)
    same.load_state_dict(queue.state_dict())
    resized.load_state_dict(queue.state_dict())
    newest = sorted(row[1] for row in rows(queue))[-other:] if other else []
    assert [row[1] for row in rows(resized)] == newest

    for q in (queue, same, resized):
        q.enqueue(*batch(total, 3, 2))
    assert rows(same) == rows(queue)
    for name, value in queue.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    kept = [*newest, total, total + 1, total + 2]
    assert [row[1] for row in rows(resized)] == (kept[-other:] if other else [])


@settings(deadline=None)
@given(
    size=st.integers(1, 6),
    extra=st.integers(0, 20),
    events=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=12),
)
def test_growing_keeps_the_rows_and_their_order(
    size: int, extra: int, events: list[tuple[int, int]]
) -> None:
    queue, plain, first = EmbeddingQueue(size, 2, max_size=size + extra), [], 0
    for n, more in events:
        queue.enqueue(*batch(first, n, 2))
        plain = (plain + list(range(first, first + n)))[-queue.size :]
        first += n
        queue.grow(min(queue.size + more, queue.max_size))
        assert [row[1] for row in rows(queue)] == plain
        newest = len(plain) // 2
        assert queue.newest(newest)[:, 0].tolist() == plain[len(plain) - newest :]

        again = EmbeddingQueue(size, 2, max_size=size + extra)
        again.load_state_dict(queue.state_dict())
        assert (again.size, again.refilled) == (queue.size, queue.refilled)
        for q in (queue, again):
            q.enqueue(*batch(first, 1, 2))
        plain, first = [*plain, first][-queue.size :], first + 1
        assert rows(again) == rows(queue)
        for name, value in queue.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])


def test_refilled_means_full_of_something_new() -> None:
    queue = EmbeddingQueue(4, 2, max_size=8)
    found = []
    for i in range(12):
        queue.enqueue(*batch(i, 1, 2))
        found.append(queue.refilled)
        if queue.refilled:
            queue.grow(8 if i == 3 else queue.size)
    # Full; full at twice the size, beside the four rows it had; then not before a whole round.
    assert [i for i, full in enumerate(found) if full] == [3, 7]
    for i in range(12, 16):
        queue.enqueue(*batch(i, 1, 2))
    assert queue.refilled
    assert not EmbeddingQueue(0, 2).refilled


@pytest.mark.parametrize(
    ("saved", "loaded", "size", "kept"),
    [
        # (size, grown to, max_size) of both; what the loaded queue has then of 10 written rows
        ((3, 6, 12), (12, 12, 12), 12, 6),
        ((3, 6, 12), (4, 4, 4), 4, 4),
        ((3, 6, 12), (2, 2, 12), 6, 6),
        ((3, 6, 12), (2, 2, 5), 5, 5),
        ((8, 8, 8), (2, 4, 12), 8, 8),
        ((8, 8, 8), (2, 4, 6), 6, 6),
        ((0, 0, 0), (4, 4, 12), 4, 0),  # a queue of no rows never grew again
        ((1, 1, 1), (4, 4, 12), 4, 1),
    ],
)
def test_a_state_goes_from_a_queue_that_grows_to_one_that_does_not_and_back(
    saved, loaded, size: int, kept: int
) -> None:
    source, target = (EmbeddingQueue(q[0], 2, max_size=q[2]) for q in (saved, loaded))
    source.grow(saved[1])
    target.grow(loaded[1])
    source.enqueue(*batch(0, 10, 2))
    target.enqueue(*batch(50, 3, 2))
    target.load_state_dict(source.state_dict())
    assert target.size == size
    assert [row[1] for row in rows(target)] == list(range(10 - kept, 10))
    target.enqueue(*batch(10, 1, 2))
    assert 10 in target.valid[1].tolist() and len(target) == min(kept + 1, size)


def test_a_state_of_the_first_version_loads() -> None:
    queue = EmbeddingQueue(4, 2)
    queue.enqueue(*batch(0, 6, 2))
    state = queue.state_dict()
    state["position"] = state["position"][:2]
    for target in (EmbeddingQueue(4, 2), EmbeddingQueue(2, 2, max_size=4)):
        target.load_state_dict(state)
        assert target.size == 4 and rows(target) == rows(queue)
        target.enqueue(*batch(6, 1, 2))
        assert [row[1] for row in rows(target)] == [3, 4, 5, 6]


def test_unwritten_rows_are_not_read() -> None:
    queue = EmbeddingQueue(8, 2)
    assert len(queue) == 0 and queue.valid[0].shape == (0, 2)
    queue.enqueue(*batch(1, 3, 2))
    assert queue.valid[0].shape == (3, 2)
    assert bool((queue.valid[0] > 0).all())


def test_embeddings_are_kept_in_float32_and_detached() -> None:
    queue = EmbeddingQueue(4, 2)
    embeddings = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(embeddings, torch.arange(2), torch.arange(2))
    assert queue.valid[0].dtype == torch.float32
    assert not queue.valid[0].requires_grad


def test_63_bit_ids_survive() -> None:
    queue = EmbeddingQueue(2, 1)
    ids = torch.tensor([2**63 - 1, 2**53 + 1])
    queue.enqueue(torch.ones(2, 1), ids, ids)
    assert queue.valid[1].tolist() == ids.tolist()


def test_clear_forgets() -> None:
    queue = EmbeddingQueue(4, 2)
    queue.enqueue(*batch(0, 3, 2))
    queue.clear()
    assert len(queue) == 0
    queue.enqueue(*batch(5, 1, 2))
    assert [row[1] for row in rows(queue)] == [5]


class Noted:
    """A observer that keeps a copy of the rows up to date with what it is told."""

    def __init__(self, queue: EmbeddingQueue) -> None:
        self.rows = queue.embeddings.clone()
        self.restarts = 0
        queue.add_observer(self)

    def rows_written(self, queue, rows, old, new) -> None:
        assert torch.equal(self.rows[rows], old)
        self.rows[rows] = new
        assert torch.equal(self.rows, queue.embeddings)

    def restart(self) -> None:
        self.restarts += 1


@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 12), max_size=8))
def test_a_observer_is_told_what_goes_and_what_comes(size: int, batches: list[int]) -> None:
    queue = EmbeddingQueue(size, 2)
    noted, first = Noted(queue), 1
    for n in batches:
        queue.enqueue(*batch(first, n, 2))
        first += n
        assert torch.equal(noted.rows, queue.embeddings)
    broken, *ids = batch(first, 2, 2)
    broken[0] = torch.nan
    queue.enqueue(broken, *ids)
    assert torch.equal(noted.rows, queue.embeddings)
    assert noted.restarts == 0


def test_a_observer_is_told_where_it_has_to_restart() -> None:
    queue = EmbeddingQueue(2, 2, max_size=4)
    noted = Noted(queue)
    queue.enqueue(*batch(1, 2, 2))
    state = queue.state_dict()
    assert noted.restarts == 1
    queue.load_state_dict(state)
    assert noted.restarts == 2
    queue.grow(4)
    assert noted.restarts == 3
    queue.clear()
    assert noted.restarts == 4


def test_observers_are_not_kept_alive_and_not_copied() -> None:
    queue = EmbeddingQueue(2, 2)
    noted = Noted(queue)
    for other in (copy.deepcopy(queue), pickle.loads(pickle.dumps(queue)), copy.copy(queue)):
        other.clear()
        other.enqueue(*batch(1, 1, 2))
        assert noted.restarts == 0
    observer = weakref.ref(noted)
    del noted
    gc.collect()
    assert observer() is None


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="size >= 0"):
        EmbeddingQueue(-1, 2)
    with pytest.raises(ValueError, match="size 4 cannot have the max_size 3"):
        EmbeddingQueue(4, 2, max_size=3)
    for size in (3, 9):
        with pytest.raises(ValueError, match=f"of 4 rows can grow to 4 up to 8, not to {size}"):
            EmbeddingQueue(4, 2, max_size=8).grow(size)
    queue = EmbeddingQueue(4, 2)
    with pytest.raises(ValueError, match="embeddings of size 2"):
        queue.enqueue(torch.ones(2, 3), torch.arange(2), torch.arange(2))
    with pytest.raises(RuntimeError, match="size mismatch"):
        queue.load_state_dict(EmbeddingQueue(4, 3).state_dict())


@pytest.mark.parametrize(
    ("clip_ids", "caption_ids", "message"),
    [
        (torch.arange(3), torch.arange(2), r"`clip_ids` has the shape \[3\], .* has 2 items"),
        (torch.arange(2), torch.ones(2, 2).long(), r"\[2\] and `caption_ids` \[2, 2\]: mixtures"),
        (torch.arange(2) + 2.0**24, torch.arange(2), "`clip_ids` is of type torch.float32"),
        (torch.arange(2), torch.arange(2).bool(), "`caption_ids` is of type torch.bool"),
        (torch.arange(2).to(torch.uint64), torch.arange(2), "`clip_ids` is of type torch.uint64"),
        (torch.tensor([-1, -1]), torch.arange(2), "`clip_ids` has -1: ids are 0 or above"),
        (torch.arange(2), torch.tensor([[0, -1], [-1, -1]]), "`caption_ids` has -1"),
    ],
)
def test_ids_of_other_items_than_the_rows_are_refused(
    clip_ids: torch.Tensor, caption_ids: torch.Tensor, message: str
) -> None:
    """Ids in float32 were rounded, and rows of the ids -1 were in no record of `RankLogger`."""
    queue = EmbeddingQueue(4, 2)
    with pytest.raises(InputError, match=message):
        queue.enqueue(torch.eye(2), clip_ids, caption_ids)
    assert len(queue) == 0 and len(queue.nonfinite_clip_ids) == 0
