"""Length bucketing, from files and rendered clips to batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from docs.pages import run_python

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.data.loading.lengths import clip_seconds
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.errors import InputError

RATE = 16_000
SECONDS = [0.4, 3.0, 1.0, 2.1, 0.5, 2.9, 1.1, 2.0, 0.6, 2.8, 0.9, 1.9]


class Tone:
    """Clip k lasts ``SECONDS[k]``."""

    def __call__(self, clip: Clip) -> np.ndarray:
        return np.full(round(SECONDS[clip.source] * RATE), 0.1, np.float32)


def rendered(*, known: bool = True) -> AudioTextDataset:
    clips = [
        Clip(f"c{k}", ("a sound", "noise"), k, seconds=value if known else None)
        for k, value in enumerate(SECONDS)
    ]
    data = AudioTextDataset("r", {"train": clips}, read=Tone(), read_rate=RATE)
    return data.read_with(AudioReader(RATE))


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.ones(len(texts), 2, dtype=torch.int64)
    return ids, ids > 0


def loader(data: AudioTextDataset, batch_size: int = 2, **options: object) -> PairLoader:
    settings = {"max_seconds": 2.5, "shuffle": True, "seed": 3, "drop_last": True, **options}
    settings = {"bucket_by_length": 10, **settings}
    return PairLoader(data, "train", tokenize, batch_size, **settings)


def pad_share(batches: list[PairBatch]) -> float:
    padded = sum(batch.waveforms.numel() for batch in batches)
    return 1 - sum(int(batch.lengths.sum()) for batch in batches) / padded


def test_batches_have_little_padding_and_the_note_says_how_much() -> None:
    data = rendered()
    plain, bucketed = loader(data, bucket_by_length=0), loader(data)
    assert plain.padding_note == ""
    note = bucketed.padding_note
    before, after = pad_share(list(plain)), pad_share(list(bucketed))
    assert after < 0.15 < 0.25 < before
    assert f"{after:.1%} of a batch are padding instead of {before:.1%}" in note
    assert f"{(1 - after) / (1 - before):.2f} times as much sound in as many samples." in note


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    data = rendered()
    given = {"PairLoader": PairLoader, "data": data, "tokens": tokenize}
    run_python("docs/fewer_tokens.md", given)
    assert "r split 'train': sorted by length, " in capsys.readouterr().out


def test_an_epoch_still_holds_every_clip_once_and_epochs_differ() -> None:
    source = loader(rendered())
    epochs = [[int(i) for batch in source for i in batch.clip_ids] for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1 and len(set(epochs[0])) == 12


def test_processes_have_clips_of_equal_length_in_a_step() -> None:
    data = rendered()
    for captions in ("random", "all"):
        processes = [
            list(loader(data, captions=captions, process_index=rank, world_size=2))
            for rank in range(2)
        ]
        for ours, theirs in zip(*processes, strict=True):
            longest = [batch.waveforms.size(1) / RATE for batch in (ours, theirs)]
            assert abs(longest[0] - longest[1]) <= 1.0
        together = loader(data, 4, captions=captions)
        for step, batch in enumerate(together):
            rows = [int(i) for batches in processes for i in batches[step].clip_ids]
            assert sorted(rows) == sorted(batch.clip_ids.tolist())


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_run_sees_the_same_batches(stop: int) -> None:
    def ids(source: PairLoader, count: int) -> list[list[int]]:
        rows: list[list[int]] = []
        while len(rows) < count:
            for batch in source:
                rows.append(batch.clip_ids.tolist())
                if len(rows) == count:
                    break
        return rows

    data = rendered()
    whole, first, second = loader(data), loader(data), loader(data, num_workers=1)
    begun = ids(first, stop)
    second.load_state_dict(first.state_dict())
    assert begun + ids(second, 14 - stop) == ids(whole, 14)


def test_a_run_from_before_resumes_and_other_lengths_are_refused() -> None:
    data = rendered()
    plain = loader(data, bucket_by_length=0)
    state = plain.state_dict()
    del state["settings"]["bucket_by_length"]
    plain.load_state_dict(state)
    with pytest.raises(InputError, match="bucket_by_length was 0 and is 10"):
        loader(data).load_state_dict(state)
    clips = [
        Clip(clip.key, clip.captions, clip.source, seconds=1.0) for clip in data.clips("train")
    ]
    other = AudioTextDataset("r", {"train": clips}, read=Tone(), read_rate=RATE)
    other.read_with(AudioReader(RATE))
    assert other.fingerprint() == data.fingerprint()
    with pytest.raises(InputError, match=r"other settings \(lengths was '.*' and is '.*'\)"):
        loader(other).load_state_dict(loader(data).state_dict())


def test_lengths_come_from_clips_segments_and_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(44_100 * 2), 44_100)
    clips = [
        Clip("a", ("x",), path),
        Clip("b", ("x",), Segment(str(path), 0.25, 1.5)),
        Clip("c", ("x",), tmp_path / "missing.wav"),
        Clip("d", ("x",), path, seconds=7.0),
    ]
    data = AudioTextDataset("d", {"train": clips}).read_with(AudioReader(RATE))
    assert clip_seconds(data, "train").tolist() == [2.0, 1.25, float("inf"), 7.0]


def test_a_clip_that_nobody_can_read_is_skipped_and_not_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.wav" for k in range(5)]
    for k, path in enumerate(paths[:4]):
        soundfile.write(path, np.full(RATE // 2 * (k + 1), 0.1), RATE)
    clips = [Clip(path.stem, ("x",), path) for path in paths]
    data = AudioTextDataset("d", {"train": clips}).read_with(AudioReader(RATE))
    source = loader(data, drop_last=False)
    assert len(list(source)) == 3 and list(source.bad_clips.keys) == ["4"]


def test_rendered_clips_of_unknown_length_are_refused() -> None:
    with pytest.raises(InputError, match="how long clip 'c0' is before it is rendered"):
        loader(rendered(known=False))
    assert len(list(loader(rendered(known=False), bucket_by_length=0))) == 6


def test_the_option_needs_shuffle_and_no_negative_number() -> None:
    with pytest.raises(InputError, match="bucket_by_length is for training"):
        loader(rendered(), shuffle=False)
    with pytest.raises(InputError, match="bucket_by_length must be at least 0, not -1"):
        loader(rendered(), bucket_by_length=-1)


def test_the_toy_knows_its_lengths_and_a_table_keeps_them() -> None:
    toy = open_toy(ToyConfig(num_train=3, num_valid=1, num_test=1))
    assert [clip.seconds for clip in toy.clips("train")] == [4.0] * 3
    table = ClipTable([Clip("a", ("x",), 1, seconds=1.23456), Clip("b", ("x",), 2)])
    assert [clip.seconds for clip in table] == [1.235, None]
