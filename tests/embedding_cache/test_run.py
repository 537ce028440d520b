"""The caches of a run: training batches, evaluated splits, and the weights they were made with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_parts import RATE, SECONDS, frozen_model, tokenize, write_sounds

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.training import LoadingOptions
from atr_moco_plugin.embedding_cache.run import RunCaches, run_caches
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split import prepare_split, score_split
from atr_moco_plugin.model import RetrievalModel


@pytest.fixture
def data(tmp_path: Path) -> AudioTextDataset:
    clips = write_sounds(tmp_path / "sounds", 9)
    splits = {"train": clips[:5], "valid": clips[5:]}
    return AudioTextDataset("d", splits).read_with(AudioReader(RATE))


@pytest.fixture
def caches_of(data: AudioTextDataset, tmp_path: Path) -> Callable[..., RunCaches]:
    def call(model: RetrievalModel, **options: Any) -> RunCaches:
        values = {"cache_embeddings": tmp_path / "cache", **options}
        seconds = values.pop("evaluated_seconds", SECONDS)
        caches = run_caches(
            model, data, tokenize, LoadingOptions(**values), max_seconds=SECONDS,
            evaluated=values.pop("evaluated", ["valid"]), evaluated_seconds=seconds,
            matches=True, batch_size=4, say=lambda text: None,
        )  # fmt: skip
        assert caches is not None
        return caches

    return call


def scores(model: RetrievalModel, data: AudioTextDataset, **inputs: Any) -> Any:
    split = prepare_split(
        data, "valid", tokenize, batch_size=3, max_seconds=SECONDS, num_workers=0, **inputs
    )
    return score_split(model.eval(), split, torch.device("cpu"), [2])


def test_an_evaluation_of_cached_clips_reads_no_audio(
    data: AudioTextDataset, caches_of: Callable[..., RunCaches], tmp_path: Path
) -> None:
    model = frozen_model()
    plain = scores(model, data)
    inputs = caches_of(model).clip_inputs("valid")
    shutil.rmtree(tmp_path / "sounds")
    cached = scores(model, data, clip_inputs=inputs)
    torch.testing.assert_close(cached.embeddings, plain.embeddings)
    for direction, found in cached.candidates.items():
        expected = plain.candidates[direction]
        torch.testing.assert_close(found.logits, expected.logits, rtol=5e-3, atol=5e-3)


def test_training_weights_that_are_no_longer_the_caches_are_refused(
    caches_of: Callable[..., RunCaches],
) -> None:
    model = frozen_model()
    caches = caches_of(model)
    caches.check_weights(model)
    with torch.no_grad():
        next(model.text.encoder.parameters()).add_(1)
    with pytest.raises(InputError, match="captions-train was written with other encoder weights"):
        caches.check_weights(model)


def test_only_frozen_towers_have_caches(
    data: AudioTextDataset, caches_of: Callable[..., RunCaches]
) -> None:
    caches = caches_of(frozen_model(audio=False), augment=AugmentConfig(gain_db=3.0))
    assert caches.outputs.clips is None and caches.clip_inputs("valid") is None
    assert caches.unreadable(data) == {}


def test_unreadable_clips_of_an_evaluation_are_known(
    data: AudioTextDataset, caches_of: Callable[..., RunCaches]
) -> None:
    Path(data.clips("valid")[1].source).write_bytes(b"")
    unreadable = caches_of(frozen_model()).unreadable(data)
    assert list(unreadable["valid"]) == ["clip6"] and "empty" in unreadable["valid"]["clip6"]


@pytest.mark.parametrize(("option", "value"), [("mix", object()), ("captions_per_clip", 2)])
def test_batches_of_other_things_are_refused(
    caches_of: Callable[..., RunCaches], option: str, value: object
) -> None:
    with pytest.raises(InputError, match=f"`dataset.{option}` makes batches of something else"):
        caches_of(frozen_model(), **{option: value})


def test_no_folder_no_cache(data: AudioTextDataset) -> None:
    assert run_caches(
        frozen_model(audio=False, text=False), data, tokenize, LoadingOptions(),
        max_seconds=SECONDS, evaluated=[], evaluated_seconds=SECONDS, matches=True, batch_size=4,
    ) is None  # fmt: skip


def test_vectors_are_not_sorted_by_length(data: AudioTextDataset, tmp_path: Path) -> None:
    section = LoadingOptions(cache_embeddings=tmp_path / "cache", bucket_by_length=5)
    with pytest.raises(InputError, match="`dataset.bucket_by_length` is 5, but .* one vector"):
        run_caches(
            frozen_model(), data, tokenize, section, max_seconds=SECONDS, evaluated=[],
            evaluated_seconds=SECONDS, matches=False, batch_size=4,
        )  # fmt: skip
    assert not (tmp_path / "cache").exists()
