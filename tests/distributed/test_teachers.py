"""Two processes with teachers make the steps of one, and embed with a teacher as one does.

The two gloo processes run this file as a script; pytest runs the other half.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from gloo import process_group, run_on_ranks
from linear import LinearModel, linear_batch
from tiny_bundle import SENTENCES, make_bundle
from torch.testing import assert_close

from atr_moco_plugin.criterion import Atc, AtcConfig, MocoAtc, MocoAtcConfig
from atr_moco_plugin.criterion.teachers import RowsById, Teacher, Teachers
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.distributed import process_index, world_size
from atr_moco_plugin.teaching import read_teacher, use_teachers
from atr_moco_plugin.tensors.float32 import unit_norm

TAUGHT: dict[str, Any] = {"teachers": ["t"], "supervised_weight": 0.5}
ROWS = [slice(0, 3), slice(3, 4)]  # not equally many


def build(kind: Any, config: Any) -> Any:
    criterion = kind(LinearModel(), config).train()
    generator = torch.Generator().manual_seed(1)
    rows = unit_norm(torch.randn(2, 40, 6, generator=generator))
    tables = [RowsById(torch.arange(40), x) for x in rows]
    criterion.set_teachers(Teachers([Teacher("t", *tables)], config))
    return criterion


def train(kind: Any, config: Any) -> dict[str, Any]:
    """Some steps of plain descent on the mean gradient of all processes."""
    criterion, losses = build(kind, config), []
    for seed in range(5):
        batch = linear_batch(seed)
        if world_size() > 1:
            own = ROWS[process_index()]
            audio, text = ({"x": batch[k]["x"][own]} for k in ("audio", "text"))
            ids = {k: batch[k][own] for k in ("clip_ids", "caption_ids")}
            batch = {"audio": audio, "text": text, **ids}
        criterion.zero_grad()
        found = criterion(**batch)
        found["loss"].backward()
        losses.append(torch.stack([found["loss"], found["loss_teacher"]]).detach())
        for p in criterion.parameters():
            if p.grad is None:
                continue
            if world_size() > 1:
                dist.all_reduce(p.grad)
            with torch.no_grad():
                p -= (0.05 if p is not criterion.temperature else 1e-4) * p.grad / world_size()
        criterion.on_optimizer_step()
    return {"losses": torch.stack(losses), **criterion.state_dict()}


def tone(clip: Clip) -> Any:
    number = int(clip.key)
    time = np.arange(4_000 + 500 * number, dtype=np.float32) / 16_000
    return (0.3 * np.sin(2 * np.pi * (200 + 90 * number) * time)).astype(np.float32)


def embed(folder: Path) -> dict[str, Any]:
    """What a bundle says of five clips, through the file that it leaves."""
    clips = [Clip(str(i), (SENTENCES[i % 3], f"{SENTENCES[0]} {i}"), None) for i in range(5)]
    data = AudioTextDataset("tones", {"train": clips}, read=tone, read_rate=16_000)
    data.read_with(AudioReader(16_000))
    criterion = Atc(LinearModel(), AtcConfig(teachers=[str(folder / "bundle")])).train()
    out = folder / f"out{world_size()}"
    use_teachers(criterion, data, folder=out, say=lambda _: None)
    (file,) = (out / "teachers").iterdir()
    teacher = read_teacher(file).teacher
    ids = torch.tensor([data.clip_id(x) for x in clips])
    return {
        "clips": teacher.clips.find(ids),
        "captions": teacher.captions.find(teacher.captions.ids),
        "digest": criterion.teachers_digest.clone(),
    }


def run_all(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "atc": train(Atc, AtcConfig(**TAUGHT)),
        "moco_atc": train(MocoAtc, MocoAtcConfig(**TAUGHT, queue_size=7)),
        "embed": embed(folder),
    }


def test_two_processes_learn_and_embed_as_one(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    run_on_ranks(__file__, 2, tmp_path)
    two = [torch.load(tmp_path / f"{i}.pt") for i in range(2)]
    one = run_all(tmp_path)
    for name in ("atc", "moco_atc"):
        losses = torch.stack([x[name].pop("losses") for x in two]).mean(dim=0)
        assert_close(losses, one[name].pop("losses"), atol=1e-5, rtol=1e-5)
        for found in two:
            assert_close(found[name], one[name], atol=1e-5, rtol=1e-5)
    # Both read one file; its rows are those of one process up to the padding of batches.
    assert torch.equal(two[0]["embed"].pop("digest"), two[1]["embed"].pop("digest"))
    one["embed"].pop("digest")
    for found in two:
        assert_close(found["embed"], one["embed"], atol=1e-5, rtol=1e-5)


if __name__ == "__main__":
    rank, shared = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    with process_group(rank, 2, shared):
        torch.save(run_all(shared), shared / f"{rank}.pt")
