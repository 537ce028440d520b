"""Teachers of a training with LAION-CLAP, found by the places of their sounds in its tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_clap import clap_batch, criterion_clap, follow

from atr_moco_plugin.criterion import MocoAtcConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.ids import batch_ids
from atr_moco_plugin.hosts.laion_clap.options import check_theirs
from atr_moco_plugin.hosts.laion_clap.tars import TarClips
from atr_moco_plugin.ids import caption_id, clip_id
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings

SOUNDS = [f"./{step}{i}.flac" for step in range(3) for i in range(4)]


def write_tar(path: Path, texts: Mapping[str, Any]) -> None:
    """A tar as ``tar cf 0.tar .`` makes it; nothing here decodes its sounds."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for name, text in texts.items():
            stem = name.removesuffix(".flac")
            for member, data in (
                (name, b"-"),
                (f"{stem}.json", json.dumps({"text": text}).encode()),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def batches_of(tar: Path) -> Any:
    """Their batches: webdataset leaves the ``./`` before a key."""

    def batch(step: int) -> dict[str, Any]:
        return {
            **clap_batch(step),
            "__url__": [str(tar)] * 4,
            "__key__": [x.removesuffix(".flac") for x in SOUNDS[4 * step : 4 * step + 4]],
        }

    return batch


def embedded(file: Path, root: Path, names: list[str]) -> str:
    """What ``embed ROOT --text FILE`` writes of sounds in ``ROOT/toy/train/0.tar``."""
    sentences = [f"sound {i}" for i in range(4)]
    rows = torch.nn.functional.normalize(torch.randn(len(names) + 4, 5), dim=1).numpy()
    members = [f"toy/train/0.tar/{x.removeprefix('./')}" for x in names]
    ids = torch.tensor([clip_id(root.name, x) for x in members]).numpy()
    captions = torch.tensor([caption_id(x) for x in sentences]).numpy()
    audio = Rows(rows[4:], [str(root / x) for x in members], ids)
    write_embeddings(
        file, Embeddings({"audio": audio, "text": Rows(rows[:4], sentences, captions)})
    )
    return str(file)


def texts() -> dict[str, Any]:
    # One text, or several of which one is drawn.
    odd = {"text": [f"Sound {i}." for i in range(4)], "one": "sound 0"}
    return {x: odd["text"] if n % 2 else odd["one"] for n, x in enumerate(SOUNDS)}


def test_what_embed_makes_of_the_tars_teaches(tmp_path: Path) -> None:
    """No file that this package writes could be used."""
    tar = tmp_path / "tars" / "toy" / "train" / "0.tar"
    write_tar(tar, texts())
    data, batch = TarClips([str(tar)]), batches_of(tar)
    found = [data.clip_id(clip) for clip in data.clips("train")]
    assert found == [x for step in range(3) for x in batch_ids(batch(step), "cpu")[0].tolist()]

    clap = criterion_clap(
        teachers=[embedded(tmp_path / "t.safetensors", tmp_path / "tars", SOUNDS)]
    )
    assert follow(clap, {}, batches=batch, train_data=[str(tar)]) == [1, 2, 3]
    assert float(clap.measures["loss_teacher"]) > 0


def test_a_teacher_that_lacks_a_clip_is_refused_before_the_first_step(tmp_path: Path) -> None:
    tar = tmp_path / "tars" / "toy" / "train" / "0.tar"
    write_tar(tar, texts())
    few = embedded(tmp_path / "few.safetensors", tmp_path / "tars", SOUNDS[:-1])
    elsewhere = embedded(tmp_path / "e.safetensors", tmp_path / "elsewhere", SOUNDS)
    for file, said in (
        (few, rf"lacks 1 of 12 clips of the split 'train' of the tars, such as '{tar}/23'"),
        (elsewhere, "is of other clips: it has none of the 12"),
    ):
        clap = criterion_clap(teachers=[file])
        with pytest.raises(InputError, match=said):
            follow(clap, {}, batches=batches_of(tar), train_data=[str(tar)])
        assert int(clap.moco.num_steps) == 0


def test_tars_that_no_teacher_can_know_are_refused(tmp_path: Path) -> None:
    tar = tmp_path / "toy" / "train" / "0.tar"
    write_tar(tar, {"a.flac": "rain", "b.flac": ["thunder", "..."]})
    with pytest.raises(InputError, match=r"0\.tar, member b\.json has the caption '\.\.\.'"):
        TarClips([str(tar)])
    with pytest.raises(InputError, match=r"1\.tar cannot be read \(No such file"):
        TarClips([str(tar.with_name("1.tar"))])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("remotedata", True, "--remotedata True"),
        ("dataset_type", "auto", "--dataset-type auto"),
        ("text_augment_selection", "all", "--text-augment-selection all"),
    ],
)
def test_data_against_which_teachers_cannot_be_checked_are_refused(
    name: str, value: Any, said: str
) -> None:
    off = ("clap_mlploss", "kappa", "local_loss", "gather_with_grad", "horovod", "torchscript")
    theirs = dict.fromkeys((*off, "trace", "remotedata", "text_augment_selection"))
    theirs |= {"precision": "amp", "tmodel": "roberta", "dataset_type": "webdataset"}
    taught = MocoAtcConfig(queue_size=8, teachers=["a.safetensors"])
    check_theirs(SimpleNamespace(**theirs), taught)
    changed = SimpleNamespace(**{**theirs, name: value})
    with pytest.raises(InputError, match=f"{said} does not go with --teachers"):
        check_theirs(changed, taught)
    check_theirs(changed, MocoAtcConfig(queue_size=8))
