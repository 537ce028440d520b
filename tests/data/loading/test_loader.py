from __future__ import annotations

import gc
import io
import logging
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.errors import ChangedError, InputError

READER = AudioReader(16_000)

SECONDS = 0.25
SAMPLES = 4000


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(texts), max(len(text) for text in texts), dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor([ord(character) for character in text])
    return ids, ids > 0


class Reader:
    """Clip k is a ramp of 3,500 + 100 k samples that starts at k; those in ``bad`` fail."""

    def __init__(self, bad: frozenset[int] = frozenset()) -> None:
        self.bad = bad

    def __call__(self, clip: Clip) -> np.ndarray:
        if clip.source in self.bad:
            raise InputError(f"clip file {clip.source} is broken")
        return clip.source + np.arange(3500 + 100 * clip.source, dtype=np.float32) / 1e5


def dataset(
    size: int = 10,
    bad: frozenset[int] = frozenset(),
    clips: list[Clip] | None = None,
    read: Callable[[Clip], np.ndarray] | None = None,
) -> AudioTextDataset:
    rows = clips or [
        Clip(f"clip{k}", (f"one {k}", f"two {k}", f"three {k}")[: 1 + k % 3], k)
        for k in range(size)
    ]
    data = AudioTextDataset("d", {"train": rows}, read=read or Reader(bad), read_rate=16_000)
    return data.read_with(READER)


def loader(
    data: AudioTextDataset | None = None, batch_size: int = 3, **options: object
) -> PairLoader:
    settings: dict[str, object] = {
        "max_seconds": SECONDS,
        "shuffle": True,
        "seed": 1,
        "drop_last": False,
        **options,
    }
    return PairLoader(data or dataset(), "train", tokenize, batch_size, **settings)


def text_of(batch: PairBatch) -> list[str]:
    return [
        "".join(chr(int(i)) for i in row[mask])
        for row, mask in zip(batch.input_ids, batch.text_mask, strict=True)
    ]


def same(a: PairBatch, b: PairBatch) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in PairBatch.__dataclass_fields__
    )


def take(source: PairLoader, count: int) -> list[PairBatch]:
    """``count`` batches, over as many epochs as they last."""
    batches: list[PairBatch] = []
    while len(batches) < count:
        for batch in source:
            batches.append(batch)
            if len(batches) == count:
                break
    return batches


def assert_same(a: list[PairBatch], b: list[PairBatch]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert same(left, right)


def keys(batches: list[PairBatch], data: AudioTextDataset) -> list[str]:
    names = {data.clip_id(clip): clip.key for clip in data.clips("train")}
    return [names[int(item)] for batch in batches for item in batch.clip_ids]


def test_an_epoch_holds_every_clip_once() -> None:
    data = dataset()
    source = loader(data)
    batches = list(source)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1] and len(source) == 4
    assert sorted(keys(batches, data)) == sorted(clip.key for clip in data.clips("train"))
    assert keys(batches, data) != [clip.key for clip in data.clips("train")]


def test_pairs_belong_together() -> None:
    data = dataset()
    clips = {data.clip_id(clip): clip for clip in data.clips("train")}
    for batch in take(loader(data), 8):
        for row, text in enumerate(text_of(batch)):
            clip = clips[int(batch.clip_ids[row])]
            assert int(batch.caption_ids[row]) == clip.caption_ids[clip.captions.index(text)]
            length = int(batch.lengths[row])
            assert length == min(SAMPLES, 3500 + 100 * clip.source)
            assert int(batch.waveforms[row, 0]) == clip.source
            assert not batch.waveforms[row, length:].any()


def test_drop_last_leaves_the_incomplete_batch_out() -> None:
    assert [len(batch) for batch in loader(drop_last=True)] == [3, 3, 3]


def test_epochs_differ_and_seeds_differ() -> None:
    data = dataset()
    source = loader(data)
    first, second = keys(list(source), data), keys(list(source), data)
    assert source.epoch == 1
    assert first != second and sorted(first) == sorted(second)
    assert first != keys(list(loader(data, seed=2)), data)


def test_captions_are_drawn_anew_each_epoch_and_all_come_up() -> None:
    source = loader()
    epochs = [sorted(text for batch in source for text in text_of(batch)) for _ in range(12)]
    assert all(len(epoch) == 10 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 6
    seen = {text for epoch in epochs for text in epoch}
    assert seen == {text for clip in dataset().clips("train") for text in clip.captions}


def test_all_captions_makes_every_pair_an_example() -> None:
    texts = sorted(text for batch in loader(captions="all") for text in text_of(batch))
    assert texts == sorted(text for clip in dataset().clips("train") for text in clip.captions)


def test_crops_move_in_training_and_stay_within_the_clip() -> None:
    data = dataset(clips=[Clip("k", ("a",), 40)])
    starts = [float(batch.waveforms[0, 0]) for batch in take(loader(data, batch_size=1), 20)]
    assert len(set(starts)) > 15
    assert 40 <= min(starts) and max(starts) <= 40 + 3500 / 1e5 + 1e-5


def test_without_shuffle_every_pass_is_the_same_in_the_splits_order() -> None:
    data = dataset()
    source = loader(data, shuffle=False)
    first, second = list(source), list(source)
    assert_same(first, second)
    assert keys(first, data) == [clip.key for clip in data.clips("train")]
    assert all(float(batch.waveforms[0, 0]) % 1 == 0 for batch in first)


AUGMENT = AugmentConfig(
    gain_db=6, noise_probability=0.5, noise_min_snr_db=5, shift_seconds=0.05, invert_probability=0.5
)


@pytest.mark.parametrize("augment", [None, AUGMENT])
@pytest.mark.parametrize("stop", range(10))
def test_a_resumed_run_sees_exactly_the_same_batches(
    stop: int, augment: AugmentConfig | None
) -> None:
    whole = take(loader(augment=augment), 11)
    first = loader(augment=augment)
    begun = take(first, stop)
    # As a checkpoint does: through a file read with weights_only.
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = loader(augment=augment)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert (second.epoch, second.position) == (first.epoch, first.position)
    assert_same(begun + take(second, 11 - stop), whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    data = dataset(bad=frozenset({4}))
    source = loader(data, num_workers=workers)
    begun = take(source, 6)
    # Prefetched batches are not counted as delivered.
    assert (source.epoch, source.position) == (1, 2)
    state = source.state_dict()
    assert_same(begun + take(source, 5), take(loader(data), 11))
    source.load_state_dict(state)
    assert_same(take(source, 5), take(loader(data), 11)[6:])


@pytest.mark.parametrize("options", [{"num_workers": 1}, {"num_workers": 2, "prefetch": 4}])
def test_workers_change_nothing_about_augmentation(options: dict[str, int]) -> None:
    plain, changed = take(loader(), 5), take(loader(augment=AUGMENT), 5)
    for a, b in zip(plain, changed, strict=True):
        assert not torch.equal(a.waveforms, b.waveforms)
        assert torch.equal(a.clip_ids, b.clip_ids) and torch.equal(a.lengths, b.lengths)
        assert torch.equal(a.input_ids, b.input_ids)
        outside = torch.arange(b.waveforms.size(1)) >= b.lengths[:, None]
        assert not b.waveforms[outside].any()
    assert_same(take(loader(augment=AUGMENT, **options), 5), changed)
    assert_same(take(loader(augment=AugmentConfig()), 5), plain)


def test_augmentation_is_drawn_anew_each_epoch() -> None:
    data = dataset(clips=[Clip("k", ("a",), 0)])
    config = AugmentConfig(noise_probability=1)
    batches = take(loader(data, batch_size=1, augment=config), 6)
    assert len({batch.waveforms.numpy().tobytes() for batch in batches}) == 6


def test_workers_change_nothing_where_audio_is_resampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for k in range(4):
        soundfile.write(tmp_path / f"{k}.wav", rng.uniform(-0.5, 0.5, (44100, 2)), 44100)
        rows.append(Clip(str(k), ("a",), tmp_path / f"{k}.wav"))
    data = AudioTextDataset("d", {"train": rows}).read_with(READER)
    options = {"batch_size": 2, "max_seconds": 0.9}
    assert_same(list(loader(data, num_workers=2, **options)), list(loader(data, **options)))


def test_loading_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(loader())
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_epoch_in_equal_batches(world_size: int, drop_last: bool) -> None:
    data = dataset()
    processes = [
        list(loader(data, 2, process_index=index, world_size=world_size, drop_last=drop_last))
        for index in range(world_size)
    ]
    assert len({tuple(len(batch) for batch in batches) for batches in processes}) == 1
    seen = [key for batches in processes for key in keys(batches, data)]
    if drop_last:
        assert len(seen) == len(set(seen)) == 10 // (2 * world_size) * 2 * world_size
    else:
        assert len(set(seen)) == 10 and len(seen) - 10 < world_size


def test_the_processes_of_a_step_hold_what_one_process_would() -> None:
    data = dataset(12)
    one = list(loader(data, 6))
    two = [list(loader(data, 3, process_index=index, world_size=2)) for index in range(2)]
    for step, batch in enumerate(one):
        together = [int(item) for batches in two for item in batches[step].clip_ids]
        assert sorted(together) == sorted(batch.clip_ids.tolist())


def test_bad_clips_of_two_processes_are_replaced_by_two_clips() -> None:
    """Both took the same one."""
    order = keys(list(loader(dataset(12), 12)), dataset(12))
    data = dataset(12, bad=frozenset(int(key[4:]) for key in order[:4]))
    for world_size in (2, 4):
        step = [
            next(iter(loader(data, 4 // world_size, process_index=index, world_size=world_size)))
            for index in range(world_size)
        ]
        assert sorted(keys(step, data)) == sorted(order[4:8])


def test_a_bad_clip_is_replaced_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(bad=frozenset({4}))
    source = loader(data)
    with caplog.at_level(logging.WARNING):
        epochs = [list(source) for _ in range(3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [3, 3, 3, 1]
        assert set(keys(batches, data)) == {f"clip{k}" for k in range(10) if k != 4}
        for batch in batches:
            assert len(set(batch.clip_ids.tolist())) == len(batch)
    assert list(source.bad_clips.keys) == ["clip4"]
    named = [record.getMessage() for record in caplog.records]
    assert named == ["d split 'train': clip 'clip4' is skipped: clip file 4 is broken"]


def test_files_that_are_another_runs_by_now_stop_at_once() -> None:
    """They were skipped, as clips that cannot be read are."""

    def read(clip: Clip) -> np.ndarray:
        raise ChangedError("the cache is of another run")

    with pytest.raises(ChangedError, match="of another run"):
        list(loader(dataset(read=read), max_bad=100))


def test_more_than_max_bad_stops() -> None:
    data = dataset(bad=frozenset({1, 2, 3}))
    assert len(list(loader(data, max_bad=3))) == 4
    with pytest.raises(ValueError, match=r"3 clips cannot be used, more than max_bad=2"):
        list(loader(data, max_bad=2))


def test_bad_clips_met_before_a_resume_still_count() -> None:
    data = dataset(bad=frozenset({1, 2}))
    first = loader(data, max_bad=2)
    list(first)
    second = loader(data, max_bad=2)
    second.load_state_dict(first.state_dict())
    assert sorted(second.bad_clips.keys) == ["clip1", "clip2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_none_is_put_up_with_where_max_bad_is_0(workers: int) -> None:
    source = loader(dataset(bad=frozenset({4})), max_bad=0, num_workers=workers)
    with pytest.raises(ValueError, match="the last is 'clip4': clip file 4") as error:
        list(source)
    assert "\n" not in str(error.value)


def test_a_split_without_a_readable_clip_stops() -> None:
    source = loader(dataset(3, bad=frozenset({0, 1, 2})), max_bad=5)
    with pytest.raises(ValueError, match="no readable clip is left"):
        list(source)


def test_next_stops_at_the_end_until_reset() -> None:
    source = loader()
    take(source, 4)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(source)
    source.reset()
    assert (source.epoch, source.position) == (1, 0)
    assert len(next(source)) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_reset_within_an_epoch_begins_the_next(workers: int) -> None:
    source = loader(num_workers=workers)
    next(source)
    source.reset()
    assert_same(take(source, 4), take(loader(), 8)[4:])


def test_workers_end_at_once_where_a_cycle_held_the_loader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What torch waits for a worker; its 5 s may pass on a busy machine anyway.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 60.0)
    others = set(multiprocessing.active_children())
    source = loader(num_workers=1)
    next(source)
    cycle: list[object] = [source]
    cycle.append(cycle)
    before = time.monotonic()
    del source, cycle
    gc.collect()
    assert set(multiprocessing.active_children()) <= others
    assert time.monotonic() - before < 30


def test_a_state_of_other_data_or_settings_is_refused() -> None:
    state = loader().state_dict()
    with pytest.raises(ValueError, match=r"\(batch_size was 3 and is 2\); resume with"):
        loader(batch_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match=r"fingerprint was .* and is"):
        loader(dataset(9)).load_state_dict(state)
    with pytest.raises(ValueError, match="augment was None and is {'gain_db': 6"):
        loader(augment=AUGMENT).load_state_dict(state)
    loader(num_workers=1, prefetch=3).load_state_dict(state)
    # As saved before there was augmentation.
    del state["settings"]["augment"]
    loader().load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (
            {"process_index": 2, "world_size": 2},
            r"process_index must be in \[0, world_size=2\), not 2",
        ),
        ({"captions": "some"}, "'random' or 'all', not 'some'"),
        ({"max_seconds": 0.0}, "max_seconds must be positive"),
        ({"prefetch": 0}, "prefetch must be at least 1, not 0"),
        ({"augment": AugmentConfig(), "shuffle": False}, "augment is for training"),
        ({"batch_size": 11, "drop_last": True}, "'train' has 10 examples and gives no batch of 11"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(**options)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_iterate_audio_keeps_order_and_beginnings(workers: int, batch_size: int) -> None:
    data = dataset(7)
    batches = list(iterate_audio(data, data.clips("train"), batch_size, SECONDS, workers))
    sizes = [waveforms.shape[0] for waveforms, _ in batches]
    assert sum(sizes) == 7 and set(sizes[:-1]) <= {batch_size}
    firsts = torch.cat([waveforms[:, 0] for waveforms, _ in batches])
    assert firsts.tolist() == list(range(7))
    for waveforms, lengths in batches:
        assert lengths.tolist() == [min(SAMPLES, 3500 + 100 * int(k)) for k in waveforms[:, 0]]
        # Shorter clips are padded with zeros and never repeated.
        outside = torch.arange(waveforms.size(1)) >= lengths[:, None]
        assert not waveforms[outside].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_iterate_audio_skips_nothing(workers: int) -> None:
    data = dataset(5, bad=frozenset({3}))
    batches = iterate_audio(data, data.clips("train"), 2, SECONDS, workers)
    assert len(next(batches)[0]) == 2
    with pytest.raises(ValueError, match="clip file 3 is broken"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_of_a_reader_is_no_bad_clip(workers: int) -> None:
    def read(clip: Clip) -> np.ndarray:
        return np.zeros(int("not a number"), np.float32)

    batches = PairLoader(
        dataset(read=read), "train", tokenize, 2, max_seconds=SECONDS, shuffle=True, seed=0,
        drop_last=True, num_workers=workers,
    )  # fmt: skip
    with pytest.raises(ValueError, match="invalid literal for int") as caught:
        next(batches)
    assert not isinstance(caught.value, InputError) and not batches.bad_clips.keys
    # A worker process puts the trace into the message.
    assert "in read" in "".join(traceback.format_exception(caught.value))


def test_iterate_audio_checks_its_arguments() -> None:
    data = dataset(3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        list(iterate_audio(data, data.clips("train"), 0, SECONDS))
    with pytest.raises(ValueError, match="num_workers must be at least 0, not -1"):
        list(iterate_audio(data, data.clips("train"), 1, SECONDS, -1))


def test_iterate_audio_holds_a_bounded_number_of_clips() -> None:
    class Counting(Reader):
        begun = 0

        def __call__(self, clip: Clip) -> np.ndarray:
            self.begun += 1
            return super().__call__(clip)

    read = Counting()
    rows = [Clip(f"{k}", ("a",), k) for k in range(40)]
    data = dataset(clips=rows, read=read)
    threads = set(threading.enumerate())
    batches = iterate_audio(data, rows, 4, SECONDS, num_workers=2)
    for delivered in range(4, 24, 4):
        next(batches)
        time.sleep(0.02)
        assert read.begun <= delivered + 4 + 2
    batches.close()
    assert read.begun <= 26 and set(threading.enumerate()) <= threads
