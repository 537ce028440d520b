"""Features of a clip: the same in every evaluation, crops in training that repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader
from trainer_world import (
    HEAD,
    RATE,
    make_clap,
    make_extractor,
)
from transformers import EvalPrediction

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    ClapCollator,
    ClapTrainerModel,
    PairDataset,
    compute_metrics,
)
from atr_moco_plugin.hosts.transformers.data.features import is_longer, window_starts
from atr_moco_plugin.text.tokenizer import train_wordpiece

Example = dict[str, Any]


def make_collator(truncation: str = "rand_trunc", **options: Any) -> ClapCollator:
    """For clips of one second, as the mels of `fusion` need it."""
    extractor = make_extractor(
        1, truncation=truncation, feature_size=64, fft_window_size=512, hop_length=400
    )
    return ClapCollator(train_wordpiece(["a dog barks", "rain"]), extractor, **options)


def make_example(seconds: float, seed: int = 0, **fields: Any) -> Example:
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * RATE))
    ids = {"clip_id": 100 + seed, "caption_id": 200 + seed}
    return {"audio": noise.astype(np.float32), "caption": "a dog barks", **ids, **fields}


def test_audio_is_read_at_the_rate_of_the_extractor(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 48_000, "FLOAT")
    clip = Clip("noise", ("white noise",), tmp_path / "noise.wav")
    data = AudioTextDataset("noises", {"train": [clip]})
    audio = PairDataset(data, "train", 48_000)[0]["audio"]
    energy = np.abs(np.fft.rfft(audio)) ** 2
    share = energy[np.fft.rfftfreq(len(audio), 1 / 48_000) > 8_000].sum() / energy.sum()
    assert share == pytest.approx(2 / 3, abs=0.005)
    assert np.array_equal(audio, noise)  # the file's own samples: nothing was resampled


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_a_long_clip_has_the_same_features_in_every_batch(truncation: str) -> None:
    collator, long = make_collator(truncation), make_example(25)
    state = np.random.get_state()[1].copy()
    alone = collator([long])
    others = collator([make_example(0.3, 1), make_example(7, 2), long])
    assert torch.equal(alone["input_features"][0], others["input_features"][2])
    assert others["is_longer"].tolist() == [[False], [True], [True]]
    # No clip is marked at random where none is longer.
    assert not collator([make_example(0.5, 3), make_example(0.6, 4)])["is_longer"].any()
    assert np.array_equal(np.random.get_state()[1], state)


def test_of_a_long_clip_the_beginning_is_taken() -> None:
    long = make_example(25)
    cut = {**long, "audio": long["audio"][:RATE]}
    collator = make_collator()
    assert torch.equal(collator([long])["input_features"], collator([cut])["input_features"])


def test_windows_cover_a_clip_and_their_embeddings_are_averaged() -> None:
    assert window_starts(25, 10, 1) == [0]
    assert window_starts(25, 10, 2) == [0, 15]
    assert window_starts(25, 10, 9) == [0, 8, 15]  # three cover it
    assert window_starts(10, 10, 9) == [0] and window_starts(3, 10, 9) == [0]

    model = ClapTrainerModel(make_clap(num_mel_bins=64, spec_size=64), head=HEAD).eval()
    short, long = make_example(0.5, 1), make_example(2.5, 2)
    audio = long["audio"]
    parts = [audio[:RATE], audio[6_000 : 6_000 + RATE], audio[-RATE:]]
    cut = [{**long, "audio": part, "clip_id": row} for row, part in enumerate(parts)]
    single = make_collator()([short, *cut])
    embeddings = model(**single)["audio_embeds"]
    batch = make_collator(eval_windows=4)([short, long])
    assert batch["windows"].tolist() == [1, 3]
    found = model(**batch)["audio_embeds"]
    mean = embeddings[1:].mean(dim=0)
    torch.testing.assert_close(found[0], embeddings[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], mean / mean.norm(), atol=1e-6, rtol=0)

    with pytest.raises(ValueError, match="eval_windows is 2.*'fusion'"):
        make_collator("fusion", eval_windows=2)
    with pytest.raises(ValueError, match="eval_windows is 0"):
        make_collator(eval_windows=0)


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_what_is_longer_is_what_the_extractor_says(truncation: str) -> None:
    extractor = make_extractor(
        1, truncation=truncation, feature_size=64, fft_window_size=512, hop_length=400
    )
    for samples in (RATE - 1, RATE, RATE + 1, RATE + 399, RATE + 400, 3 * RATE):
        # With a clip that is longer beside it, none is marked at random.
        pair = [np.ones(samples, np.float32), np.ones(3 * RATE, np.float32)]
        expected = extractor(pair, sampling_rate=RATE)["is_longer"][0][0]
        assert is_longer(extractor, samples) == expected, samples


def test_crops_of_training_follow_from_seed_epoch_and_clip() -> None:
    examples = [make_example(3, seed) for seed in range(4)]
    collator = make_collator().for_training(seed=5)
    first = collator(examples)
    assert first["random_crop"].all()
    assert torch.equal(collator(examples)["input_features"], first["input_features"])
    # Not from the batch, nor from the worker process.
    reverse = collator(examples[::-1])
    assert torch.equal(reverse["input_features"].flip(0), first["input_features"])
    workers = DataLoader(examples, batch_size=2, num_workers=2, collate_fn=collator)
    features = torch.cat([batch["input_features"] for batch in workers])
    assert torch.equal(features, first["input_features"])

    collator.set_epoch(1)
    second = collator(examples)["input_features"]
    other = make_collator().for_training(seed=6)(examples)["input_features"]
    still = make_collator()(examples)["input_features"]
    for features in (second, other, still):
        assert not any(
            torch.equal(a, b) for a, b in zip(features, first["input_features"], strict=True)
        )
    fused = make_collator("fusion").for_training()(
        [make_example(0.5, 1, clip_id=1), make_example(0.5, 2, clip_id=2)]
    )
    assert fused["is_longer"].sum() == 1 and not fused["random_crop"].any()


def test_workers_that_stay_see_the_epoch_change() -> None:
    examples = [make_example(3, seed) for seed in range(4)]
    collator = make_collator().for_training()
    loader = DataLoader(
        examples, batch_size=2, num_workers=1, collate_fn=collator, persistent_workers=True
    )
    first = torch.cat([batch["input_features"] for batch in loader])
    collator.set_epoch(1)
    second = torch.cat([batch["input_features"] for batch in loader])
    assert torch.equal(second, collator(examples)["input_features"])
    assert not torch.equal(first, second)


def test_one_of_several_captions_is_drawn_in_training_and_all_are_evaluated() -> None:
    texts = {"caption": ["a dog barks", "rain", "a cat"], "caption_id": [1, 2, 3]}
    example = make_example(0.5, **texts)
    pair = make_example(0.5, 1, caption="rain", caption_id=2)
    collator = make_collator().for_training()
    drawn = set()
    for epoch in range(20):
        collator.set_epoch(epoch)
        batch = collator([example, pair])
        assert batch["caption_id"][1] == 2
        drawn.add(int(batch["caption_id"][0]))
    assert drawn == {1, 2, 3}
    batch = make_collator()([example, pair])
    assert batch["caption_id"].tolist() == [[1, 2, 3], [2, -100, -100]]

    model = ClapTrainerModel(make_clap(num_mel_bins=64, spec_size=64), head=HEAD).eval()
    output = model(**batch)
    rows = [{**example, "caption": c, "caption_id": i} for i, c in enumerate(texts["caption"], 1)]
    expected = model(**make_collator()([*rows, pair]))
    found = torch.cat([output["text_embeds"][0], output["text_embeds"][1, :1]])
    torch.testing.assert_close(found, expected["text_embeds"], atol=1e-6, rtol=0)
    assert output["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-6)


@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1]]])
def test_a_clip_id_of_different_audio_is_refused(batches: list[list[int]]) -> None:
    model = ClapTrainerModel(make_clap(num_mel_bins=64, spec_size=64), head=HEAD).eval()
    tone = np.sin(np.arange(RATE, dtype=np.float32))
    examples = [make_example(1, 1), {**make_example(1, 1), "caption_id": 202}]

    def figures() -> dict[str, float]:
        outputs, labels = [], []
        for rows in batches:
            batch = make_collator()([examples[row] for row in rows])
            with torch.no_grad():
                found = model(**batch)
            outputs.append((found["audio_embeds"].numpy(), found["text_embeds"].numpy()))
            labels.append((batch["clip_id"].numpy(), batch["caption_id"].numpy()))
        return compute_metrics(EvalPrediction(outputs, labels))

    assert figures()["t2a_r1"] == 100
    # A class or a speaker for an id: all clips but the first were left out of the figures.
    examples[1]["audio"] = tone
    with pytest.raises(InputError, match="clip_id 101 of the evaluation set.*different audio"):
        figures()
