"""What data sets hand over as audio, captions and ids: read rightly, left out, or refused."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from trainer_world import RATE, Broken, make_extractor, make_trainer

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapCollator, PairDataset
from atr_moco_plugin.hosts.transformers.data.waveform import BadClipError, as_waveform
from atr_moco_plugin.text.tokenizer import train_wordpiece

Example = dict[str, Any]
SECOND = np.sin(np.arange(RATE) / 3).astype(np.float32) / 2


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def decoder(samples: np.ndarray, rate: int) -> Any:
    """As `datasets` 4 hands it over: channels first, however few the samples are."""
    decoded = SimpleNamespace(data=torch.from_numpy(samples), sample_rate=rate)
    return SimpleNamespace(get_all_samples=lambda: decoded)


@pytest.mark.parametrize(
    ("audio", "tolerance"),
    [
        (SECOND, 0),
        (SECOND.astype(np.float64), 0),
        (SECOND.astype(np.float16), 1e-3),
        (SECOND.tolist(), 0),
        (torch.from_numpy(SECOND), 0),
        (torch.from_numpy(SECOND).bfloat16(), 4e-3),
        (torch.from_numpy(SECOND).requires_grad_(), 0),
        (np.round(SECOND * 2**15).astype(np.int16), 2e-5),
        (torch.from_numpy(np.round(SECOND * 2**15).astype(np.int16)), 2e-5),
        (np.round(SECOND.astype(np.float64) * 2**31).astype(np.int32), 1e-7),
        (np.round(SECOND * 128 + 128).astype(np.uint8), 5e-3),
        (np.round(SECOND * 128).astype(np.int8), 5e-3),
        (SECOND[None], 0),
        (SECOND[:, None], 0),
        (np.stack([SECOND * 1.5, SECOND * 0.5]), 1e-6),
        (np.stack([SECOND * 1.5, SECOND * 0.5], axis=1), 1e-6),
        (np.stack([SECOND * 1.5, SECOND * 0.5]).tolist(), 1e-6),
        ({"array": SECOND, "sampling_rate": RATE}, 0),
        ({"path": "a.wav", "array": SECOND.tolist(), "sampling_rate": np.int64(RATE)}, 0),
        ({"bytes": wav(SECOND, RATE), "path": None}, 0),
        ({"bytes": wav(np.stack([SECOND, SECOND], axis=1), RATE), "path": "a.wav"}, 0),
        (wav(SECOND, RATE), 0),
        (memoryview(wav(SECOND, RATE)), 0),
        (decoder(SECOND[None], RATE), 0),
        (decoder(np.stack([SECOND, SECOND]), RATE), 0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_forms_of_audio(audio: Any, tolerance: float) -> None:
    found = as_waveform(audio, RATE)
    assert found.dtype == np.float32 and found.shape == (RATE,)
    np.testing.assert_allclose(found, SECOND, rtol=0, atol=tolerance)


def test_audio_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(SECOND, RATE))
    for audio in (path, str(path), {"bytes": None, "path": str(path)}):
        assert np.array_equal(as_waveform(audio, RATE), SECOND)


def test_few_samples_of_a_decoder_are_not_its_channels() -> None:
    three = np.float32([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])  # three channels of two samples
    np.testing.assert_allclose(as_waveform(decoder(three, RATE), RATE), [0.3, 0.4], rtol=1e-6)
    # Of an array the smaller dimension is.
    np.testing.assert_allclose(as_waveform(three, RATE), [0.15, 0.35, 0.55], rtol=1e-6)


def test_audio_of_another_rate_is_resampled_once(tmp_path: Path) -> None:
    rate = 3 * RATE
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) / 2
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) / 2
    (tmp_path / "a.wav").write_bytes(wav(tone, rate))
    for audio in (
        {"array": tone, "sampling_rate": rate},
        {"array": np.round(tone * 2**15).astype(np.int16), "sampling_rate": rate},
        {"bytes": wav(tone, rate), "path": None},
        {"bytes": None, "path": str(tmp_path / "a.wav")},
        decoder(tone[None], rate),
    ):
        found = as_waveform(audio, RATE)
        assert found.shape == (RATE,)
        np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-3)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0), "no samples"),
        ([], "no samples"),
        (np.zeros((2, 0)), "no samples"),
        ({"array": [], "sampling_rate": RATE}, "no samples"),
        ({"array": [0.5], "sampling_rate": 3 * RATE}, "1 samples at 24000 Hz, not one at 8000 Hz"),
        (np.float32([0, math.nan, 0]), "NaN or infinite"),
        ({"array": [0.0, math.inf], "sampling_rate": 48_000}, "NaN or infinite"),
        (np.float64([0, 1e300]), "NaN or infinite"),
        (decoder(np.float32([[0, math.nan]]), RATE), "NaN or infinite"),
        (SECOND * 2**15, "float samples up to 16,38.*as int16"),
        (None, "no audio"),
        ({"bytes": None, "path": None}, "no audio"),
        ({"array": None, "sampling_rate": RATE}, "no audio"),
        (b"no sound", "not readable as audio"),
        (b"", "empty"),
        (wav(SECOND, RATE)[:500], "truncated"),
        ("nowhere.wav", "nowhere.wav: no such audio file"),
    ],
)
def test_a_clip_that_cannot_be_used(audio: Any, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadClipError, match=words) as caught:
            as_waveform(audio, RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros((40, 50)), r"shape \[40, 50\] does not say"),
        (np.zeros((2, 2)), r"shape \[2, 2\] does not say"),
        (np.zeros((1, 1, 100)), r"shape \[1, 1, 100\]"),
        (0.5, r"shape \[\]"),
        ([0, 1, -1], "type int64, whose full scale is not known"),
        (np.zeros(9, np.uint16), "type uint16, whose full scale"),
        (np.zeros(9, bool), "bool"),
        (np.zeros(9, complex), "complex"),
        ([[0.1, 0.2], [0.3]], "unequal lists"),
        (["a", "b"], "type list"),
        (torch.eye(3).to_sparse(), "no plain tensor"),
        ({"array": SECOND}, "sampling rate is None"),
        ({"array": SECOND, "sampling_rate": 0}, "sampling rate is 0"),
        ({"array": SECOND, "sampling_rate": "16k"}, "sampling rate is '16k'"),
        ({"array": SECOND, "sampling_rate": [RATE, RATE]}, "sampling rate is"),
        ({"waveform": SECOND}, "a mapping of \\['waveform'\\]"),
        (object(), "type object"),
    ],
)
def test_audio_of_a_form_that_is_refused(audio: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_waveform(audio, RATE)
    assert not isinstance(caught.value, BadClipError) and "\n" not in str(caught.value)


def make_collator(**options: Any) -> ClapCollator:
    return ClapCollator(train_wordpiece(["a dog barks", "rain"]), make_extractor(), **options)


def make_example(**fields: Any) -> Example:
    return {"audio": SECOND, "caption": "a dog", "clip_id": 1, "caption_id": 2, **fields}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"audio": np.zeros((2, 2))}, "The audio of the clip 1 cannot be read: its shape"),
        ({"caption": 7}, "caption of the clip 1 is 7, of the type int.*token ids"),
        ({"caption": None}, "type NoneType"),
        ({"caption": b"a dog"}, "type bytes"),
        ({"caption": [101, 7, 102], "caption_id": [1, 2, 3]}, "is 101, of the type int"),
        ({"caption": ["a", "b"]}, "2 `caption` in a list and one `caption_id`"),
        ({"caption_id": [1, 2]}, "one `caption` and 2 `caption_id` in a list"),
        ({"caption": ["a", "b"], "caption_id": [1]}, "2 `caption`.* and 1 `caption_id`"),
        ({"clip_id": "dog.wav"}, "clip_id is 'dog.wav', expected an integer.*ids.clip_id"),
        ({"clip_id": 3.5}, "clip_id is 3.5"),
        ({"clip_id": True}, "clip_id is True"),
        ({"clip_id": -1}, "clip_id is -1"),
        ({"caption_id": 2**63}, "caption_id is 9223372036854775808"),
        ({"sampling_rate": 16_000}, "was read at 16000 Hz, but the feature extractor takes 8000"),
    ],
)
def test_an_example_of_another_form_is_refused(fields: Example, words: str) -> None:
    for collator in (make_collator(), make_collator().for_training()):
        with pytest.raises(InputError, match=words) as caught:
            collator([make_example(clip_id=5), make_example(**fields)])
        assert "\n" not in str(caught.value)


def test_what_is_no_example_is_refused() -> None:
    with pytest.raises(InputError, match="of the type tuple, expected a mapping"):
        make_collator()([(SECOND, "a dog", 1, 2)])


def test_examples_of_any_form_give_one_batch() -> None:
    collator = make_collator()
    expected = collator([make_example()])["input_features"]
    mapping = {"array": SECOND, "sampling_rate": RATE}
    for audio in (mapping, SECOND[None], decoder(SECOND[None], RATE)):
        batch = collator([make_example(audio=audio, clip_id=torch.tensor(1), sampling_rate=RATE)])
        assert torch.equal(batch["input_features"], expected)


@pytest.mark.parametrize("training", [True, False])
def test_a_bad_clip_is_left_out_counted_and_named_once(training: bool) -> None:
    collator = make_collator().for_training() if training else make_collator()
    bad = make_example(audio=SECOND * math.nan, clip_id=9, name="broken.wav")
    with pytest.warns(UserWarning, match="'broken.wav' is left out: it has NaN") as caught:
        batches = [collator([make_example(), bad, make_example(clip_id=3)]) for _ in range(2)]
    assert len(caught) == 1
    for batch in batches:
        assert batch["skipped_clip_id"].tolist() == [9]
        assert batch["clip_id"].tolist() == ([1, 3] if training else [1, -100, 3])
        assert batch["input_features"].isfinite().all()
    with pytest.raises(InputError, match="of 1 can be used, the first, 'broken.wav', bec.*NaN"):
        collator([bad])
    whole = collator([make_example(), make_example(clip_id=3)])
    assert "skipped_clip_id" not in whole
    rows = [0, 1] if training else [0, 2]
    assert torch.equal(batches[0]["input_features"][rows], whole["input_features"])


def test_captions_without_a_word() -> None:
    collator = make_collator()
    with pytest.warns(UserWarning, match="left out: it has no caption with a word in it"):
        batch = collator([make_example(), make_example(clip_id=4, caption=" \u200b")])
    assert batch["clip_id"].tolist() == [1, -100] and batch["caption_id"].tolist() == [2, -100]
    texts = {"caption": ["", "rain"], "caption_id": [5, 6]}
    with pytest.warns(UserWarning, match="has 1 captions without a word"):
        batch = collator([make_example(clip_id=6, **texts)])
    assert batch["caption_id"].tolist() == [[6]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_without_bad_clips_and_names_them(tmp_path: Path, workers: int) -> None:
    trainer = make_trainer(
        tmp_path, eval_strategy="steps", eval_steps=4, max_steps=8, per_device_eval_batch_size=8,
        dataloader_num_workers=workers,
    )  # fmt: skip
    trainer.train_dataset = Broken(trainer.train_dataset, {2})
    trainer.eval_dataset = Broken(trainer.eval_dataset, {1})
    with pytest.warns(UserWarning) as caught:
        trainer.train()
    told = [str(warning.message) for warning in caught]
    ends = [text for text in told if "1 clips could not be used" in text]
    assert len(ends) == 1 and "'train-00002'" in ends[0]
    if not workers:  # else they go to standard error
        assert sum("'train-00002' is left out" in text for text in told) == 1
    scores = [entry for entry in trainer.state.log_history if "eval_r_sum" in entry]
    assert [entry["eval_clips"] for entry in scores] == [3, 3]
    assert [entry["eval_skipped_rows"] for entry in scores] == [5, 5]
    assert trainer.state.global_step == 8


def test_too_many_bad_clips_stop_a_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.callback_handler.callbacks[-1].max_bad_clips = 0
    trainer.train_dataset = Broken(trainer.train_dataset, {0, 1})
    with pytest.warns(), pytest.raises(InputError, match="More than 0 clips.*max_bad_clips"):
        trainer.train()
    other = make_trainer(tmp_path)
    other.callback_handler.callbacks[-1].max_bad_clips = 0
    other.eval_dataset = Broken(other.eval_dataset, {1})
    with pytest.warns(), pytest.raises(InputError, match="left out of an evaluation"):
        other.evaluate()


def test_a_file_that_cannot_be_decoded_is_a_bad_clip(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(wav(SECOND, RATE))
    clips = [Clip(x, ("a dog", "rain"), tmp_path / f"{x}.wav") for x in ("a", "b")]
    data = PairDataset(AudioTextDataset("files", {"train": clips}), "train", RATE)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with pytest.warns(UserWarning, match="'b' is left out: .*b.wav: not readable as audio"):
        batch = make_collator()([data[i] for i in range(4)])
    assert (batch["clip_id"] == -100).tolist() == [False, False, True, True]
    by_clip = data.by_clip()
    assert len(by_clip) == 2 and by_clip[0]["caption"] == ["a dog", "rain"]
    assert by_clip[0]["caption_id"] == [data[0]["caption_id"], data[1]["caption_id"]]
