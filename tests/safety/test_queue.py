"""No NaN in a queue: neither from a batch nor from a checkpoint, in both queues alike."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.queue import EmbeddingQueue, finite_rows

BROKEN = (math.nan, math.inf, -math.inf)


@given(
    size=st.integers(1, 7),
    batches=st.lists(
        st.lists(st.sampled_from([None, *BROKEN]), min_size=1, max_size=10), max_size=6
    ),
)
def test_a_broken_row_leaves_what_was_there(size: int, batches: list[list[float | None]]) -> None:
    queue, plain, first = EmbeddingQueue(size, 3), [(0.0, -1)] * size, 0
    place = 0
    for values in batches:
        ids = torch.arange(first, first + len(values))
        rows = ids[:, None].float().repeat(1, 3)
        for row, value in enumerate(values):
            if value is not None:
                rows[row, 1] = value
        queue.enqueue(rows, ids, ids)
        assert queue.nonfinite_clip_ids.tolist() == [
            -1 if value is None else first + row for row, value in enumerate(values)
        ]
        for row, value in list(enumerate(values))[-size:]:
            if value is None:
                plain[place] = (float(first + row), first + row)
            place = (place + 1) % size
        first += len(values)
        embeddings, clips, captions = queue.valid
        assert len(embeddings) == min(first, size)  # as many as if all had been finite
        found = list(zip(embeddings[:, 1].tolist(), clips.tolist(), strict=True))
        assert found == plain[: len(found)] and torch.equal(clips, captions)
        assert bool(finite_rows(embeddings).all())


def test_a_cleared_queue_has_no_row_to_leave() -> None:
    queue, ids = EmbeddingQueue(2, 1), torch.tensor([5, 6])
    queue.enqueue(torch.ones(2, 1), ids, ids)
    queue.clear()
    queue.enqueue(torch.full((1, 1), math.nan), ids[:1], ids[:1])
    assert [x.tolist() for x in queue.valid] == [[[0.0]], [-1], [-1]]


@pytest.mark.parametrize("tower", ["audio_m", "text_m"])
def test_row_k_of_both_queues_stays_one_item(tower: str, tiny_model, tiny_batch) -> None:
    criterion = MocoAtc(tiny_model(), MocoAtcConfig(queue_size=6)).train()
    criterion(**tiny_batch(b=4, seed=1))

    def plant(module, args, output):
        output[0][2] = math.nan
        return output

    handle = getattr(criterion, tower).register_forward_hook(plant)
    batch = tiny_batch(b=4, seed=2)  # the queue wraps
    losses = criterion(**batch)
    handle.remove()
    assert losses["loss"].isnan()
    audio, text = criterion.audio_queue, criterion.text_queue
    for name, queue in (("audio_m", audio), ("text_m", text)):
        assert bool(finite_rows(queue.valid[0]).all())
        own = int(batch["clip_ids"][2]) if name == tower else -1
        assert queue.nonfinite_clip_ids.tolist() == [-1, -1, own, -1]
    assert torch.equal(audio.valid[1], text.valid[1])
    assert int(batch["clip_ids"][2]) not in audio.valid[1].tolist()
    assert criterion(**tiny_batch(b=4, seed=3))["loss"].isfinite()


def test_a_state_with_a_broken_row_is_refused(tiny_model, tiny_batch) -> None:
    criterion = MocoAtc(tiny_model(), MocoAtcConfig(queue_size=6)).train()
    criterion(**tiny_batch(b=4))
    state = {name: x.clone() for name, x in criterion.state_dict().items()}
    state["text_queue.embeddings"][5] = math.nan  # nobody reads a row that was not written
    criterion.load_state_dict(state)
    state["text_queue.embeddings"][1, 3] = math.inf
    with pytest.raises(ValueError, match="1 of the 4 rows of `text_queue.embeddings`.*earlier"):
        criterion.load_state_dict(state)
