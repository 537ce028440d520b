from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import Atc, AtcConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import caption_id, clip_id
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings
from atr_moco_plugin.teaching import read_teacher, use_teachers

KEYS = ["a.wav", "b.wav", "c.wav"]
SENTENCES = ["a dog barks", "rain falls", "a siren wails"]


def unit(n: int, width: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def dataset(folder: Path = Path(), name: str = "mine") -> AudioTextDataset:
    own = [Clip(k, (s,), str(folder / k)) for k, s in zip(KEYS, SENTENCES, strict=True)]
    more = [Clip("d.wav", ("thunder",), str(folder / "d.wav"))]
    return AudioTextDataset(name, {"train": own, "valid": more})


def tensors(name: str = "mine", width: int = 5, **changed: Tensor) -> dict[str, Tensor]:
    return {
        "audio": unit(3, width, 1),
        "text": unit(3, width, 2),
        "clip_ids": torch.tensor([clip_id(name, x) for x in KEYS]),
        "caption_ids": torch.tensor([caption_id(x) for x in SENTENCES]),
        **changed,
    }


def saved(path: Path, content: dict[str, Tensor]) -> Path:
    save_file({k: v.contiguous() for k, v in content.items()}, path)
    return path


def criterion(*files: Path) -> Any:
    return Atc(LinearModel(), AtcConfig(teachers=[str(x) for x in files])).train()


def test_files_of_several_widths_teach_together(tmp_path: Path) -> None:
    first = saved(tmp_path / "1.safetensors", tensors())
    second = saved(tmp_path / "2.safetensors", tensors(width=7, text=unit(3, 7, 9)))
    taught = criterion(first, second)
    use_teachers(taught, dataset())
    batch = {k: {"x": torch.randn(2, 6)} for k in ("audio", "text")}
    ids = {k: x[:2] for k, x in tensors().items() if "ids" in k}
    found = taught(**batch, **ids)
    assert found["loss_teacher"] > 0
    use_teachers(taught, dataset())  # nothing more is done
    half = saved(tmp_path / "3.safetensors", {
        k: x.half() if x.is_floating_point() else x for k, x in tensors().items()
    })  # fmt: skip
    rows = read_teacher(half).teacher.clips.find(ids["clip_ids"])
    assert rows.dtype == torch.float32
    assert_close(rows, tensors()["audio"][:2], atol=1e-3, rtol=0)


def test_what_embed_writes_is_found_by_the_paths_of_its_files(tmp_path: Path) -> None:
    """``embed`` calls the data set like its folder, whatever a training calls it."""
    content = tensors("sounds")
    (tmp_path / "sounds").mkdir()
    rows = {
        "audio": Rows(
            content["audio"].numpy(),
            [str(tmp_path / "sounds" / x) for x in KEYS],
            content["clip_ids"].numpy(),
        ),
        "text": Rows(content["text"].numpy(), SENTENCES, content["caption_ids"].numpy()),
    }
    file = tmp_path / "sounds.safetensors"
    write_embeddings(file, Embeddings(rows, {"model": "x"}))
    use_teachers(criterion(file), dataset(tmp_path / "sounds"))
    with pytest.raises(InputError, match="is of other clips: it has none of the 3"):
        use_teachers(criterion(file), dataset(tmp_path / "elsewhere"))


def test_a_file_that_several_clips_share_is_found_by_each_of_them(tmp_path: Path) -> None:
    """The clip of the last split took its row, and that of the training was missing."""
    shared = str(tmp_path / "a.wav")
    own = [Clip(key, (SENTENCES[0],), shared) for key in ("a.wav", "test/a.wav", "part/a.wav")]
    data = AudioTextDataset("mine", {"train": own[:1], "test": own[1:]})
    content = tensors("sounds")
    names = [str(tmp_path / x) for x in KEYS]
    audio = Rows(content["audio"].numpy(), names, content["clip_ids"].numpy())
    text = Rows(content["text"].numpy(), SENTENCES, content["caption_ids"].numpy())
    file = tmp_path / "sounds.safetensors"
    write_embeddings(file, Embeddings({"audio": audio, "text": text}))
    for split in data.splits:
        use_teachers(criterion(file), data, split)
    clips = read_teacher(file, data).teacher.clips
    ids = torch.tensor([*(data.clip_id(x) for x in own), *content["clip_ids"][1:].tolist()])
    assert_close(clips.find(ids), content["audio"][[0, 0, 0, 1, 2]])
    assert len(clips.ids) == 5


def test_files_that_cannot_teach_are_refused_in_a_sentence(tmp_path: Path) -> None:
    nan = unit(3, 5)
    nan[1, 2] = torch.nan
    for changed, message in (
        ({"audio": None}, "has no `audio`: a teacher's file has"),
        ({"caption_ids": None}, "has no `caption_ids`"),
        ({"text": unit(3, 4)}, "`audio` has 5 numbers a row and `text` 4"),
        ({"text": nan}, "row 1 of `text` is not finite"),
        ({"audio": 2 * unit(3, 5)}, "row 0 of `audio` has the length 2, expected 1"),
        ({"audio": unit(4, 5)}, r"`clip_ids` is torch.int64 of shape \[3\], .* shape \[4\]"),
        ({"audio": torch.ones(3, 5, dtype=torch.int64)}, "expected floats"),
        ({"clip_ids": torch.ones(3)}, "`clip_ids` is torch.float32"),
        (
            {
                "audio": unit(1, 5) * torch.tensor([[1.0], [-1.0], [1.0]]),
                "clip_ids": torch.tensor([4, 4, 5]),
            },
            "rows of `audio` with the id 4 are opposite and have no mean",
        ),
    ):
        content = {k: v for k, v in {**tensors(), **changed}.items() if v is not None}
        file = saved(tmp_path / "x.safetensors", content)
        with pytest.raises(InputError, match=message) as error:
            read_teacher(file)
        assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    np.save(tmp_path / "x.npy", np.ones((3, 5)))
    with pytest.raises(InputError, match=r"teachers are read from \.safetensors files"):
        read_teacher(tmp_path / "x.npy")
    (tmp_path / "y.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read as \.safetensors"):
        read_teacher(tmp_path / "y.safetensors")
    with pytest.raises(MissingFileError, match="there is no such file of a teacher"):
        read_teacher(tmp_path / "z.safetensors")


def test_teachers_of_other_or_too_few_clips_are_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    other = saved(tmp_path / "other.safetensors", tensors("other"))
    with pytest.raises(InputError, match=r"is of other clips: it has none of the 3 of .* 'a.wav'"):
        use_teachers(criterion(other), dataset())
    content = tensors()
    few = saved(tmp_path / "few.safetensors", {k: v[1:] for k, v in content.items()})
    with pytest.raises(InputError, match=r"lacks 1 of 3 clips of the split 'train' .* 'a.wav'"):
        use_teachers(criterion(few), dataset())
    text = {k: v[:2] for k, v in content.items() if k in ("text", "caption_ids")}
    mute = saved(tmp_path / "mute.safetensors", {**content, **text})
    with pytest.raises(InputError, match=r"lacks 1 of 3 captions .* such as 'a siren wails'"):
        use_teachers(criterion(mute), dataset())
    one, two = (saved(tmp_path / f"{x}.safetensors", content) for x in (1, 2))
    with pytest.raises(InputError, match="are the same embeddings: name them once"):
        use_teachers(criterion(one, two), dataset())
    with pytest.raises(MissingFileError, match="`teachers` has .* no such file or folder"):
        use_teachers(criterion(tmp_path / "gone"), dataset(), folder=tmp_path)
    with pytest.raises(InputError, match="which is no file: give its saved embeddings"):
        use_teachers(criterion(tmp_path))
    # A clip that neither its maker nor training can read.
    named = tmp_path / "named.safetensors"
    about = {"about": json.dumps({"unreadable": {"a.wav": "broken"}})}
    left = {k: v[1:] if k in ("audio", "clip_ids") else v for k, v in content.items()}
    save_file({k: v.contiguous() for k, v in left.items()}, named, about)
    use_teachers(criterion(named), dataset().read_with(AudioReader(16_000)))


def test_who_has_no_teachers_is_left_alone() -> None:
    plain = Atc(LinearModel(), AtcConfig())
    use_teachers(plain)
    use_teachers(torch.nn.Linear(1, 1))
    assert plain.teachers is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"paths": "[1"}, "`paths` .* expected a list of 3 paths"),
        ({"paths": "4"}, "`paths` .* expected a list of 3 paths"),
        ({"paths": '["a.wav", "b.wav"]'}, "`paths` .* expected a list of 3 paths"),
        ({"paths": "[1, 2, 3]"}, "`paths` .* expected a list of 3 paths"),
        ({"about": "{"}, "`about` .* expected an object"),
        ({"about": "[]"}, "`about` .* expected an object"),
    ],
)
def test_damaged_metadata_are_named(said: dict[str, str], message: str, tmp_path: Path) -> None:
    """They ended in a traceback."""
    file = tmp_path / "x.safetensors"
    save_file({k: v.contiguous() for k, v in tensors().items()}, file, said)
    with pytest.raises(InputError, match=message) as error:
        read_teacher(file, dataset(tmp_path))
    assert str(error.value).startswith(str(file))
