"""Examples of any form become one batch; faults of one clip and of all clips are told apart."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from trainer_world import (
    RATE,
    make_clap,
    make_extractor,
)

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    ClapCollator,
    PairDataset,
)
from atr_moco_plugin.text.tokenizer import train_wordpiece


def test_the_collator_takes_what_a_clap_model_takes() -> None:
    data = PairDataset(open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)), "train", RATE)
    assert len(data) == 10
    tokenizer = train_wordpiece([data[i]["caption"] for i in range(10)], vocab_size=100)
    collator = ClapCollator(tokenizer, make_extractor(), max_tokens=6)
    examples = [data[0], data[5]]
    assert examples[0]["audio"].shape == (4 * RATE,)
    batch = collator(examples)
    assert batch["input_features"].shape == (2, 1, 32, 8)
    assert batch["input_ids"].shape == (2, 6) and batch["is_longer"].shape == (2, 1)
    assert batch["clip_id"].tolist() == [example["clip_id"] for example in examples]
    assert batch["clip_id"].unique().numel() == 2
    with pytest.raises(ValueError, match="no 'clip_id'.*TRAINING_ARGUMENTS"):
        collator([{"audio": examples[0]["audio"], "caption": "a", "caption_id": 1}])


def test_captions_are_padded_on_the_right_whatever_the_tokenizer_says() -> None:
    """Towers take the first position, which was padding where the saved configuration said left."""
    example = {"audio": np.zeros(RATE, np.float32), "clip_id": 1}
    captions = ["a dog barks while rain falls", "a dog"]
    examples = [{**example, "caption": x, "caption_id": i} for i, x in enumerate(captions)]
    tokenizer = train_wordpiece(captions * 2, vocab_size=60)
    tokenizer.padding_side = "left"
    batch = ClapCollator(tokenizer, make_extractor())(examples)
    assert (batch["input_ids"][:, 0] == tokenizer.cls_token_id).all()
    assert batch["attention_mask"][1].tolist() == [1] * 4 + [0] * 4
    assert tokenizer.padding_side == "left"


def test_a_tokenizer_that_does_not_fit_the_model_or_the_captions_is_refused(tmp_path: Path) -> None:
    data = PairDataset(open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)), "train", RATE)
    tokenizer = train_wordpiece([data[i]["caption"] for i in range(10)], vocab_size=100)
    encoder = make_clap(vocab_size=len(tokenizer)).text_model
    ClapCollator(tokenizer, make_extractor(), max_tokens=39).check(encoder, [data])
    # CLAP's text model counts positions from behind the padding id.
    with pytest.raises(InputError, match="`ClapCollator.max_tokens` is 40, .* for 39 tokens"):
        ClapCollator(tokenizer, make_extractor(), max_tokens=40).check(encoder)
    with pytest.raises(InputError, match=f"has {len(tokenizer)} tokens, .* embeddings for 40"):
        ClapCollator(tokenizer, make_extractor(), max_tokens=6).check(make_clap(40).text_model)
    other = ClapCollator(
        train_wordpiece(["\u72ac\u304c"], vocab_size=20), make_extractor(), max_tokens=6
    )
    with pytest.raises(InputError, match="10 of 10 captions .* set `MocoCallback.allow_unknown"):
        other.check(encoder, [data, object()])
    with pytest.warns(UserWarning, match="10 of 10 captions"):
        other.check(encoder, [data], allow_unknown=True)


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


def test_captions_that_are_cut_are_told_with_the_option_of_the_collator() -> None:
    data = PairDataset(open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)), "train", RATE)
    captions = [example["caption"] for example in data]
    collator = ClapCollator(train_wordpiece(captions), make_extractor(), max_tokens=5)
    with pytest.warns(UserWarning, match="longer than `ClapCollator.max_tokens`, 5: .*; raise it"):
        collator.check(torch.nn.Identity(), [data])
