"""The figures of docs/operations.md in small, as bounds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch

from atr_moco_plugin.criterion import atc_loss
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.queue import EmbeddingQueue
from benchmarks import scale
from benchmarks.memory import LiveBytes

ROWS = 5_000


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_manifest_takes_a_fifth_of_a_kilobyte_a_row(tmp_path: Path, name: str) -> None:
    scale.write_manifests(tmp_path, ROWS)
    open_manifest(ManifestConfig(tmp_path / name, check_audio=False))  # imports and caches
    tracemalloc.start()
    dataset = open_manifest(ManifestConfig(tmp_path / name, check_audio=False))
    dataset.read_with(AudioReader(16_000))
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    loader = PairLoader(
        dataset, "train", scale.tokenize, 8, max_seconds=1.0, shuffle=True, seed=0, drop_last=True
    )
    more, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset.clips("train")) == loader.num_examples == ROWS
    text = 2 * 36 + len(str(tmp_path)) + 90  # key, path and the longest caption
    assert size / ROWS < text + 100
    assert peak / ROWS < 4 * text + 500
    assert (more - size) / ROWS < 16


def test_a_queue_row_takes_its_embedding_and_four_ids() -> None:
    queues = [EmbeddingQueue(ROWS, scale.DIM) for _ in range(2)]
    # A clip and a caption, and of a mixture the second ones.
    assert sum(b.nbytes for b in queues[0].buffers()) == ROWS * (4 * scale.DIM + 32) + 32
    ids, rows = torch.arange(ROWS), torch.rand(ROWS, scale.DIM)
    for queue in queues:
        queue.enqueue(rows, ids, ids)
    b = 16
    batch = torch.rand(b, scale.DIM, requires_grad=True)
    positives = torch.zeros(b, b + ROWS, dtype=torch.bool)
    positives[:, :b].fill_diagonal_(True)
    with LiveBytes() as live:
        columns = [queue.valid[0] for queue in queues]
        still = batch.detach()
        atc_loss(
            batch, batch, still, still, *columns, positives, torch.tensor([0.07]), 0.4
        ).backward()  # fmt: skip
    # The queues themselves, a copy of each, and the similarities.
    assert live.peak < ROWS * (4 * 4 * scale.DIM + 48 * b)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_tables_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    scale.write_manifests(tmp_path, 1_200)
    assert (tmp_path / "audio" / "part_0001" / "Y00000001199.wav").is_file()
    found = scale.measure_manifest(tmp_path / "m.csv", workers=0)
    assert found["open s"] > 0 and found["pickled"] > 1_200 * 100
    assert "| open " in scale.show(found) and " MiB |" in scale.show(found)
    found = scale.measure_queues(3_000)
    assert found["file"] > 2 * 3_000 * 1_040
