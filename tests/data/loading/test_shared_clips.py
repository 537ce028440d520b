"""Batches with several captions of a clip, and with mixtures of two clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch, SharedClipsBatch
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.errors import InputError


@pytest.fixture(scope="module")
def toy() -> Any:
    dataset = open_toy(ToyConfig(num_train=12, num_valid=2, num_test=2, cache=True))
    dataset.read_with(AudioReader(16_000))
    return dataset


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    seen.extend(texts)
    ids = torch.zeros(len(texts), 2, dtype=torch.int64)
    return ids, torch.ones_like(ids, dtype=torch.bool)


seen: list[str] = []


def loader(toy: Any, batch_size: int = 6, **options: Any) -> PairLoader:
    seen.clear()
    return PairLoader(
        toy, "train", tokenize, batch_size,
        **{"max_seconds": 4.0, "shuffle": True, "seed": 3, "drop_last": True, **options},
    )  # fmt: skip


def same(a: PairBatch, b: PairBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_a_clip_is_in_a_batch_once_for_several_captions(toy: Any) -> None:
    batches = list(loader(toy, captions_per_clip=3))
    assert len(batches) == 6  # 12 clips, 2 a batch
    clips = {clip.key: clip for clip in toy.clips("train")}
    by_id = {toy.clip_id(clip): clip for clip in clips.values()}
    met: list[int] = []
    for batch in batches:
        assert len(batch) == 6 and batch.waveforms.shape[0] == len(batch.lengths) == 2
        assert isinstance(batch, SharedClipsBatch) and batch.rows.tolist() == [0, 0, 0, 1, 1, 1]
        assert batch.audio["rows"] is batch.rows
        for row in range(2):
            ids = batch.clip_ids[3 * row : 3 * row + 3]
            (clip,) = {by_id[i] for i in ids.tolist()}
            met.append(int(ids[0]))
            captions = batch.caption_ids[3 * row : 3 * row + 3].tolist()
            assert len({*captions}) == 3 and {*captions} <= {*clip.caption_ids}
            wave = toy.load(clip, 10**6)
            length = int(batch.lengths[row])
            np.testing.assert_array_equal(batch.waveforms[row, :length].numpy(), wave)
    assert sorted(met) == sorted(by_id)
    assert loader(toy, captions_per_clip=3).num_examples == 36


def test_captions_are_drawn_anew_and_alike_in_every_process(toy: Any) -> None:
    one = loader(toy, captions_per_clip=2)
    first = [batch.caption_ids.tolist() for batch in one]
    assert first != [batch.caption_ids.tolist() for batch in one]
    again = [batch.caption_ids.tolist() for batch in loader(toy, captions_per_clip=2)]
    assert again == first
    parts = [
        [x for batch in loader(toy, captions_per_clip=2, process_index=i, world_size=2)
         for x in batch.caption_ids.tolist()]
        for i in range(2)
    ]  # fmt: skip
    assert sorted(sum(parts, [])) == sorted(sum(first, []))


def test_more_captions_than_any_clip_has_are_refused(toy: Any) -> None:
    most = max(len(clip.captions) for clip in toy.clips("train"))
    with pytest.raises(InputError, match=rf"no clip of .* has more than {most} caption\(s\)"):
        loader(toy, 2 * (most + 1), captions_per_clip=most + 1)


def test_a_clip_with_fewer_captions_has_some_twice() -> None:
    clips = [Clip(f"{i}", tuple(f"sound {i} {j}" for j in range(1 + i)), i) for i in range(3)]

    def read(clip: Clip, *_: Any) -> np.ndarray:
        return np.full(4_000, 0.1, np.float32)

    dataset = AudioTextDataset("few", {"train": clips}, read=read, read_rate=16_000)
    dataset.read_with(AudioReader(16_000))
    (batch,) = loader(dataset, 9, captions_per_clip=3)
    captions = batch.caption_ids.view(3, 3).tolist()
    assert sorted(len({*of_clip}) for of_clip in captions) == [1, 2, 3]


def test_mixtures_have_the_ids_the_captions_and_the_sound_of_two(toy: Any) -> None:
    config = MixConfig(probability=0.5, level_db=0.0, wordings=("{} | {}",))
    by_id = {toy.clip_id(clip): clip for clip in toy.clips("train")}
    plain = {
        int(batch.clip_ids[i]): batch.waveforms[i]
        for batch in loader(toy) for i in range(len(batch))
    }  # fmt: skip
    batches = list(loader(toy, mix=config))
    texts = list(seen)
    mixtures = 0
    for at, batch in enumerate(batches):
        assert batch.clip_ids.shape == batch.caption_ids.shape == (6, 2)
        assert batch.waveforms.shape[0] == 6
        for row in range(6):
            (first, second), captions = batch.clip_ids[row].tolist(), batch.caption_ids[row]
            text = texts[6 * at + row]
            wave = batch.waveforms[row, : plain[first].shape[0]]
            if second == -1:
                assert captions[1] == -1 and "|" not in text
                assert torch.equal(wave, plain[first])
                continue
            mixtures += 1
            assert first != second
            said = dict(zip(by_id[second].caption_ids, by_id[second].captions, strict=True))
            own = dict(zip(by_id[first].caption_ids, by_id[first].captions, strict=True))
            parts = {x.strip(" .").lower() for x in text.split("|")}
            expected = own[int(captions[0])], said[int(captions[1])]
            assert parts == {x.strip(" .").lower() for x in expected}
            rest = wave - plain[first] * (wave @ plain[first]) / plain[first].square().sum()
            assert rest.norm() > 0.05 * wave.norm()
    assert 0 < mixtures < 12


def test_mixtures_are_the_same_in_every_run_and_other_ones_in_every_epoch(toy: Any) -> None:
    options = {"mix": MixConfig(), "captions_per_clip": 2}
    one = loader(toy, **options)
    first, second = list(one), list(one)
    assert not all(same(a, b) for a, b in zip(first, second, strict=True))
    again = loader(toy, **options, num_workers=1)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    # Resumed in the second epoch.
    resumed = loader(toy, **options)
    state = loader(toy, **options).state_dict()
    state = json.loads(json.dumps(state))  # as `Trainer`'s checkpoints keep it
    resumed.load_state_dict({**state, "epoch": 1, "position": 2})
    assert all(same(a, b) for a, b in zip(second[2:], resumed, strict=True))
    with pytest.raises(InputError, match="mix was .* and is None"):
        loader(toy, captions_per_clip=2).load_state_dict(state)


def test_both_off_leave_batches_and_old_states_as_they_were(toy: Any) -> None:
    one = loader(toy)
    batch = next(one)
    assert type(batch) is PairBatch and batch.clip_ids.shape == (6,) and "rows" not in batch.audio
    old = one.state_dict()
    for name in ("captions_per_clip", "mix"):
        del old["settings"][name]
    loader(toy).load_state_dict(old)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"captions_per_clip": 0}, "captions_per_clip must be at least 1, not 0"),
        ({"captions_per_clip": 4}, "does not divide batch_size, 6: .* set batch_size to 8"),
        ({"captions_per_clip": 2, "captions": "all"}, "captions is 'all'"),
        ({"mix": MixConfig(), "shuffle": False}, "mix is for training"),
    ],
)
def test_what_does_not_go_together(toy: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        loader(toy, **options)


def test_changes_of_the_waveform_reach_both_parts(toy: Any) -> None:
    quiet = AugmentConfig(gain_db=20.0)
    batch = next(loader(toy, mix=MixConfig(probability=1.0), augment=quiet))
    assert torch.isfinite(batch.waveforms).all() and (batch.clip_ids >= 0).all()


def test_sorted_by_length_a_mixture_is_as_long_as_its_clip(tmp_path: Path) -> None:
    """Else one long second clip would pad a batch of short ones."""
    clips = []
    for k in range(24):
        noise = np.random.default_rng(k).normal(0, 0.1, 3200 if k % 2 else 16_000)
        soundfile.write(tmp_path / f"{k}.wav", noise, 16_000)
        clips.append(Clip(str(k), (f"sound {k}",), str(tmp_path / f"{k}.wav")))
    data = AudioTextDataset("d", {"train": clips}).read_with(AudioReader(16_000))
    options = {"mix": MixConfig(probability=1.0), "bucket_by_length": 4}
    batches = list(loader(data, **options))
    assert len(batches) == 4 and all((x.clip_ids[:, 1] >= 0).any() for x in batches)
    assert sorted(x.waveforms.size(1) for x in batches) == [3200, 3200, 16_000, 16_000]
