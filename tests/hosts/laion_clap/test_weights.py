"""The export of plain CLAP weights writes a new file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap import weights
from atr_moco_plugin.hosts.laion_clap.weights import export


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = {
        "module.logit_scale_a": torch.tensor(2.0),
        "module.audio_projection.0.weight": torch.ones(2, 2),
        "module.text_branch.embeddings.position_embeddings.weight": torch.ones(5, 2),
        "module.moco.num_steps": torch.tensor([10]),
    }
    file = tmp_path / "epoch_10.pt"
    torch.save({"epoch": 10, "name": "x", "state_dict": state}, file)
    return file


def test_an_export_writes_over_nothing(checkpoint: Path, tmp_path: Path) -> None:
    before = checkpoint.read_bytes()
    (tmp_path / "other.pt").write_bytes(b"mine")
    (tmp_path / "link.pt").symlink_to(checkpoint)
    for out, said in (
        ("epoch_10.pt", "is the checkpoint itself"),
        ("link.pt", "is the checkpoint itself"),
        ("other.pt", "is there already"),
        ("missing/clap.pt", "there is no folder .*missing"),
        (".", "is a folder"),
    ):
        with pytest.raises(InputError, match=said):
            export(checkpoint, tmp_path / out)
    assert checkpoint.read_bytes() == before
    assert (tmp_path / "other.pt").read_bytes() == b"mine"
    assert not (tmp_path / "missing").exists()


def test_a_mistake_in_the_name_is_told_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="is a folder"):
        export(tmp_path / "broken.pt", tmp_path)


def test_an_export_that_cannot_be_written_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(weights.torch, "save", full)
    with pytest.raises(InputError, match="clap.pt cannot be written .*the disk is full"):
        export(checkpoint, tmp_path / "clap.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["epoch_10.pt"]
