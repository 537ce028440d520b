"""Audio at the extractor's rate, evaluation without chance, and training with crops that repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from trainer_world import HEAD, RATE, make_batch, make_clap, make_extractor, make_trainer
from transformers import EvalPrediction, Trainer

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
        assert not any(torch.equal(a, b) for a, b in zip(features, first["input_features"]))
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


def rows_encoded(trainer: Trainer) -> list[int]:
    """Filled with how many clips the audio encoder takes in each pass."""
    rows: list[int] = []
    tower = trainer.model.criterion.model.audio
    tower.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_features"])), with_kwargs=True
    )
    return rows


@pytest.mark.parametrize("options", [{}, {"dataloader_num_workers": 2}])
def test_an_evaluation_repeats_to_the_last_bit(tmp_path: Path, options: dict[str, int]) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1, per_device_eval_batch_size=3, **options)
    rows = rows_encoded(trainer)
    first = trainer.predict(trainer.eval_dataset)
    assert rows == [3, 1]  # four clips of five captions each, each once
    second = trainer.predict(trainer.eval_dataset)
    for one, other in zip(first.predictions, second.predictions):
        assert np.array_equal(one, other)
    assert first.metrics["test_clips"] == 4 and first.metrics["test_captions"] == 20
    assert trainer.evaluate()["eval_r_sum"] == first.metrics["test_r_sum"]
    # Larger batches round otherwise, and nothing else.
    trainer.args.per_device_eval_batch_size = 4
    whole = trainer.predict(trainer.eval_dataset)
    for one, other in zip(first.predictions, whole.predictions):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_trainer_without_the_callback_evaluates_the_same(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1, per_device_eval_batch_size=10)
    expected = trainer.evaluate()
    plain = Trainer(
        trainer.model, trainer.args, trainer.data_collator, eval_dataset=trainer.eval_dataset,
        compute_metrics=compute_metrics,
    )  # fmt: skip
    rows = rows_encoded(plain)
    found = plain.evaluate()
    assert rows == [2, 2]  # 20 pairs in batches of ten, of two clips each
    assert found["eval_a2t_map10"] == expected["eval_a2t_map10"]
    assert found["eval_r_sum"] == expected["eval_r_sum"] and found["eval_clips"] == 4


def test_training_crops_at_random_with_the_same_collator(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["random_crop"].all() and batch["caption_id"].shape == (4,)
    assert "random_crop" not in next(iter(trainer.get_eval_dataloader()))
    test = trainer.get_test_dataloader(test_dataset=trainer.train_dataset)
    assert "random_crop" not in next(iter(test)) and len(test.dataset) == 6  # clips
    assert trainer.data_collator([trainer.train_dataset[0]]).keys() == {
        "input_features", "is_longer", "input_ids", "attention_mask", "clip_id", "caption_id",
    }  # fmt: skip
    with pytest.raises(ValueError, match="cropped at random.*for_evaluation"):
        trainer.model.eval()(**batch)
    pairs = next(iter(trainer.get_eval_dataloader()))
    with pytest.raises(ValueError, match="all captions.*for_training.*MocoCallback"):
        trainer.model.train()(**pairs)


def features_seen(trainer: Trainer) -> list[Tensor]:
    """Filled with the features that the model trains on."""
    seen: list[Tensor] = []

    def look(model: Any, _: Any, batch: dict[str, Tensor]) -> None:
        if model.training:
            seen.append(batch["input_features"].clone())

    trainer.model.register_forward_pre_hook(look, with_kwargs=True)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_go_on_where_a_run_stopped(tmp_path: Path, workers: int) -> None:
    options = {
        "save_strategy": "steps", "save_steps": 3, "max_steps": 5, "max_length_s": 1,
        "per_device_train_batch_size": 15, "dataloader_num_workers": workers,
    }  # fmt: skip
    whole = make_trainer(tmp_path / "whole", **options)
    seen = features_seen(whole)
    whole.train()  # two steps an epoch, so that the checkpoint is within the second
    resumed = make_trainer(tmp_path / "resumed", **options)
    again = features_seen(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert len(seen) == 5 and len(again) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen[3:], again))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


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


def test_metrics_of_clips_with_several_captions() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(n, 5, generator=generator).numpy() for n in (3, 6))
    pairs = np.array([7, 7, 7, 3, 3, 9]), np.array([0, 1, 2, 3, 1, 4])
    flat = EvalPrediction((audio[[0, 0, 0, 1, 1, 2]], text), pairs)
    wide = np.full((4, 3, 5), -100, np.float32)
    wide[[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]] = text
    ids = np.array([[0, 1, 2], [3, 1, -100], [4, -100, -100], [5, 6, 7]])
    clips = np.array([7, 3, 9, -100])  # the last could not be used
    every = np.concatenate([audio, np.zeros((1, 5), np.float32)])
    found = compute_metrics(EvalPrediction((every, wide), (clips, ids)))
    assert found == {**compute_metrics(flat), "skipped_rows": 1}
    # As Trainer hands them over with eval_do_concat_batches=False.
    parts = (slice(0, 1), slice(1, 2), slice(2, 4))
    batches = [(every[at], wide[at]) for at in parts]
    labels = [(clips[at], ids[at]) for at in parts]
    assert compute_metrics(EvalPrediction(batches, labels)) == found
    with pytest.raises(ValueError, match="No clip of the evaluation set"):
        compute_metrics(EvalPrediction((every[3:], wide[3:]), (clips[3:], ids[3:])))


@pytest.mark.parametrize(
    "options",
    [
        {"eval_do_concat_batches": False},
        {"dataloader_drop_last": True},
        {"eval_accumulation_steps": 1},
        {"eval_do_concat_batches": False, "eval_accumulation_steps": 1},
    ],
)
def test_options_of_the_evaluation_change_no_figure(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    expected = make_trainer(tmp_path, per_device_eval_batch_size=3).evaluate()
    found = make_trainer(tmp_path, per_device_eval_batch_size=3, **options).evaluate()
    for name in ("eval_r_sum", "eval_a2t_map10", "eval_clips", "eval_captions"):
        assert found[name] == expected[name], name


def test_several_evaluation_sets(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1)
    single = trainer.evaluate()["eval_r_sum"]
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.train_dataset}
    metrics = trainer.evaluate()
    assert metrics["eval_one_r_sum"] == single
    assert metrics["eval_one_clips"] == 4 and metrics["eval_two_clips"] == 6


def test_loss_of_an_evaluation_leaves_out_what_is_no_pair() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, queue_size=4).eval()
    batch = make_batch(4)
    expected = model(**{name: value[:3] for name, value in batch.items()})["loss"]
    batch["clip_id"][3] = -100
    assert model(**batch)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    batch["clip_id"][:] = -100
    assert model(**batch)["loss"] == 0
