"""Caches of a real tiny model: what trains on them, and when they are written, read and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from cache_parts import RATE, SECONDS, frozen_model, tokenize
from conftest import TINY_AUDIO, make_tiny_model
from safetensors.numpy import load_file

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.embedding_cache.batch import CachedOutputs
from atr_moco_plugin.embedding_cache.build import Ranks
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.towers import check_frozen, open_caches
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import RetrievalModel, freeze_encoder

Sounds = Callable[..., AudioTextDataset]


def caches(
    model: RetrievalModel, data: AudioTextDataset, options: CacheOptions, **other: Any
) -> CachedOutputs:
    values = {"max_seconds": SECONDS, "matches": False, "say": lambda text: None, **other}
    return open_caches(model, data, "train", tokenize, options, **values)


def loader(
    data: AudioTextDataset, outputs: CachedOutputs | None = None, **other: Any
) -> PairLoader:
    values = {"max_seconds": SECONDS, "shuffle": True, "seed": 3, "drop_last": True, **other}
    return PairLoader(data, "train", tokenize, 3, outputs=outputs, **values)


def train(criterion: Any, batches: PairLoader, steps: int = 6) -> list[float]:
    """The losses of a few steps."""
    parameters = [p for p in criterion.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    criterion.attach(optimizer)
    criterion.train()
    losses: list[float] = []
    while len(losses) < steps:
        for batch in batches:
            torch.manual_seed(len(losses))  # the draws of the hard negatives
            values = criterion(batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
            values["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(values["loss"].item())
    return losses[:steps]


@pytest.mark.parametrize(("audio", "text"), [(True, True), (True, False), (False, True)])
def test_pooled_outputs_give_the_losses_of_the_towers(
    sounds: Sounds, options: CacheOptions, audio: bool, text: bool
) -> None:
    data, whole = sounds(), 2.0  # longer than any clip: there is one crop
    options = replace(options, crops=1)

    def criterion() -> MocoAtc:
        return MocoAtc(frozen_model(audio, text), MocoAtcConfig(queue_size=8))

    outputs = caches(criterion().model, data, options, max_seconds=whole)
    assert (outputs.clips is None, outputs.captions is None) == (not audio, not text)
    plain = train(criterion(), loader(data, max_seconds=whole))
    cached = train(criterion(), loader(data, outputs, max_seconds=whole))
    # Rounding differs with the sizes of products, by machine, and grows with the steps.
    np.testing.assert_allclose(cached[0], plain[0], rtol=2e-6)
    np.testing.assert_allclose(cached, plain, rtol=2e-4)


@pytest.mark.parametrize("fusion", ["blip", "albef"])
def test_tokens_in_float16_give_nearly_the_losses_of_the_towers(
    sounds: Sounds, options: CacheOptions, fusion: str
) -> None:
    data, options = sounds(), replace(options, crops=1)

    def criterion() -> MocoAtcAtm:
        return MocoAtcAtm(frozen_model(fusion=fusion), MocoAtcAtmConfig(atm_start=0, queue_size=8))

    outputs = caches(criterion().model, data, options, max_seconds=2.0, matches=True)
    assert outputs.clips is not None and outputs.captions is not None
    assert outputs.clips.index.stage.tokens and outputs.clips.index.stage.pooled
    assert outputs.captions.index.stage.tokens == (fusion == "albef")  # blip reads the ids
    plain = train(criterion(), loader(data, max_seconds=2.0))
    cached = train(criterion(), loader(data, outputs, max_seconds=2.0))
    np.testing.assert_allclose(cached, plain, rtol=2e-3)


@pytest.mark.parametrize("fusion", ["blip", "albef"])
def test_gradient_caching_cuts_cached_outputs(
    sounds: Sounds, options: CacheOptions, fusion: str
) -> None:
    data = sounds()

    def criterion(chunk_size: int | None) -> MocoAtcAtm:
        criterion = MocoAtcAtm(
            frozen_model(fusion=fusion), MocoAtcAtmConfig(atm_start=0, queue_size=8)
        )
        criterion.chunk_size = chunk_size
        return criterion

    outputs = caches(criterion(None).model, data, options, matches=True)
    whole = train(criterion(None), loader(data, outputs))
    cut = train(criterion(2), loader(data, outputs))
    assert cut[0] == pytest.approx(whole[0], rel=1e-5)
    np.testing.assert_allclose(cut, whole, rtol=2e-3)  # AdamW makes much of a rounding error


def test_a_pooling_that_trains_gets_tokens(sounds: Sounds, options: CacheOptions) -> None:
    data, options = sounds(), replace(options, crops=1)

    def criterion() -> MocoAtc:
        model = frozen_model(audio_pooling="attention")
        return MocoAtc(model, MocoAtcConfig(queue_size=8))

    outputs = caches(criterion().model, data, options, max_seconds=2.0)
    assert outputs.clips is not None and not outputs.clips.index.stage.pooled
    plain = train(criterion(), loader(data, max_seconds=2.0))
    cached = train(criterion(), loader(data, outputs, max_seconds=2.0))
    np.testing.assert_allclose(cached, plain, rtol=2e-3)


def test_no_audio_is_read_once_it_is_cached(
    sounds: Sounds, options: CacheOptions, tmp_path: Path
) -> None:
    data, model = sounds(), frozen_model()
    outputs = caches(model, data, options)
    shutil.rmtree(tmp_path / "sounds")
    batches = loader(data, outputs)
    first, second = list(batches), list(batches)
    assert len(first) == len(second) == 3 and not batches.bad_clips.keys
    said: list[str] = []
    again = caches(model, data, options, say=said.append)  # a run that starts anew
    assert len(said) == 2 and all("none of them is read or encoded" in text for text in said)
    assert all(
        torch.equal(x.audio["pooled"], y.audio["pooled"])
        for x, y in zip(first, loader(data, again), strict=True)
    )


def test_each_epoch_draws_one_of_the_crops(sounds: Sounds, options: CacheOptions) -> None:
    """Of a clip longer than a crop; a shorter one has one crop, which is kept once."""
    data = sounds()
    outputs = caches(frozen_model(), data, options)
    seen: dict[int, set[bytes]] = {}
    batches = loader(data, outputs)
    for _ in range(12):
        for batch in batches:
            for clip, row in zip(batch.clip_ids.tolist(), batch.audio["pooled"], strict=True):
                seen.setdefault(clip, set()).add(row.numpy().tobytes())
    long = {
        data.clip_id(x) for k, x in enumerate(data.clips("train")) if 0.2 + 0.15 * (k % 5) > SECONDS
    }
    assert {clip: len(rows) for clip, rows in seen.items()} == {
        data.clip_id(x): 3 if data.clip_id(x) in long else 1 for x in data.clips("train")
    }


def test_without_shuffling_a_clip_is_its_beginning(sounds: Sounds, options: CacheOptions) -> None:
    data, model = sounds(), frozen_model()
    outputs = caches(model, data, options)
    batches = loader(data, outputs, shuffle=False, drop_last=False)
    plain = loader(data, shuffle=False, drop_last=False)
    for cached, batch in zip(batches, plain, strict=True):
        with torch.no_grad():
            expected = model.audio.pooling(*model.audio.prepare(**batch.audio)["tokens"])
        torch.testing.assert_close(cached.audio["pooled"], expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_places_in_an_epoch_change_nothing(
    sounds: Sounds, options: CacheOptions, workers: int
) -> None:
    data = sounds()
    outputs = caches(frozen_model(), data, options, matches=True)
    expected = list(loader(data, outputs))
    resumed = loader(data, outputs, num_workers=workers)
    state = resumed.state_dict()
    next(resumed)
    state = resumed.state_dict()
    again = loader(data, outputs, num_workers=workers)
    again.load_state_dict(state)
    for found, batch in zip(again, expected[1:], strict=True):
        torch.testing.assert_close(found.audio, batch.audio, rtol=0, atol=0)
        torch.testing.assert_close(found.text["pooled"], batch.text["pooled"], rtol=0, atol=0)


def test_a_place_in_the_data_belongs_to_a_number_of_crops(
    sounds: Sounds, options: CacheOptions
) -> None:
    data = sounds()
    state = loader(data, caches(frozen_model(), data, options)).state_dict()
    with pytest.raises(InputError, match="crops was 3 and is None"):
        loader(data).load_state_dict(state)


class Interrupted(Exception):
    pass


def test_an_interrupted_cache_goes_on_where_it_was(
    sounds: Sounds, options: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = sounds(), frozen_model()
    monkeypatch.setattr("atr_moco_plugin.embedding_cache.clips.items_a_shard", lambda size: 2)

    def stop(text: str) -> None:
        if "2 of 5 files" in text:
            raise Interrupted

    with pytest.raises(Interrupted):
        caches(model, data, options, say=stop)
    folder = options.folder / "clips-train"
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(written) == 2
    said: list[str] = []
    caches(model, data, options, say=said.append)
    assert "the outputs of 5 of 9 clips are written" in said[0]
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert len(list(folder.glob("*.safetensors"))) == 5


def test_processes_share_the_writing(
    sounds: Sounds, options: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = sounds(), frozen_model()
    whole = replace(options, folder=options.folder / "whole")
    caches(model, data, whole)
    monkeypatch.setattr("atr_moco_plugin.embedding_cache.clips.items_a_shard", lambda size: 2)
    plan: dict[str, Any] = {}

    def keep(make: Callable[[], Any]) -> Any:
        plan.setdefault(str(len(plan) // 2), make())
        return plan["0"]

    class Left(Exception):
        pass

    def leave(problem: str | None) -> None:
        raise Left

    options = replace(options, folder=options.folder / "shared")
    with pytest.raises(Left):  # the second process is not there yet
        caches(model, data, options, ranks=Ranks(0, 2, keep, leave))
    files = sorted(x.name[:6] for x in (options.folder / "clips-train").glob("*.safetensors"))
    assert files == ["000000", "000002", "000004"]
    ranks = Ranks(1, 2, lambda make: plan["0"], lambda problem: None)
    freeze_encoder(model.text, "none")
    shared = caches(model, data, options, ranks=ranks)
    expected = caches(model, data, whole)
    assert shared.clips is not None and expected.clips is not None
    for clip in data.clips("train"):
        for crop in range(3):
            np.testing.assert_allclose(
                shared.clips.get(clip.key, crop).pooled,
                expected.clips.get(clip.key, crop).pooled,
                rtol=1e-4,
                atol=1e-6,
            )


def test_a_disk_that_is_not_shared_is_noticed(sounds: Sounds, options: CacheOptions) -> None:
    ranks = Ranks(1, 2, lambda make: make(), lambda problem: None)
    with pytest.raises(InputError, match="1 of 1 shards are not there.*all processes share"):
        caches(frozen_model(), sounds(), options, ranks=ranks)


def other_weights() -> RetrievalModel:
    return frozen_model(seed=1)


def far_sighted() -> RetrievalModel:
    """The same on a second of sound, whose tokens are nearer to each other than either distance."""
    model = frozen_model()
    encoder: Any = model.audio.encoder
    other = make_tiny_model(audio={"name": "beats", "config": {**TINY_AUDIO, "max_distance": 65}})
    other.audio.encoder.load_state_dict(encoder.state_dict())
    model.audio.encoder = other.audio.encoder
    freeze_encoder(model.audio, "all")
    return model


STALE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the encoder's weights differ", {"model": other_weights}, {}),
    ("the encoder's `max_distance`: 64 there, 65 here", {"model": far_sighted}, {}),
    ("`dataset.cache_crops`: 3 there, 2 here", {}, {"crops": 2}),
    ("the seed of the crops: 0 there, 5 here", {}, {"seed": 5}),
    ("the longest clip in seconds: 0.5 there, 0.4 here", {"max_seconds": 0.4}, {}),
    ("what is kept: pooled .* there, pooled .* and tokens .* here", {"matches": True}, {}),
]


@pytest.mark.parametrize(("reason", "changed", "option"), STALE, ids=[x[0] for x in STALE])
def test_stale_outputs_are_refused(
    sounds: Sounds,
    options: CacheOptions,
    reason: str,
    changed: dict[str, Any],
    option: dict[str, Any],
) -> None:
    data = sounds()
    caches(frozen_model(), data, options)
    model = changed.pop("model", frozen_model)()
    with pytest.raises(InputError, match=f"has outputs of another run .*{reason}.*remove the fold"):
        caches(model, data, replace(options, **option), **changed)


def test_other_clips_rates_and_captions_are_refused(sounds: Sounds, options: CacheOptions) -> None:
    data = sounds()
    caches(frozen_model(), data, options)
    fewer = AudioTextDataset("d", {"train": data.clips("train")[1:]}).read_with(AudioReader(RATE))
    with pytest.raises(InputError, match="the clips differ"):
        caches(frozen_model(), fewer, options)
    rounded = AudioTextDataset("d", {"train": data.clips("train")})
    rounded.read_with(AudioReader(RATE, cache_dir=options.folder / "audio"))
    with pytest.raises(InputError, match="rounding to 16 bits"):
        caches(frozen_model(), rounded, options)
    clips = [replace(clip, captions=("another",)) for clip in data.clips("train")]
    others = AudioTextDataset("d", {"train": clips}).read_with(AudioReader(RATE))
    with pytest.raises(InputError, match="captions-train .*the captions differ"):
        caches(frozen_model(), others, options)
    with pytest.raises(InputError, match="captions-train .*the token ids of the captions differ"):
        open_caches(
            frozen_model(), data, "train", lambda texts: tokenize([x[:2] for x in texts]), options,
            max_seconds=SECONDS, matches=False, say=lambda text: None,
        )  # fmt: skip


def test_tokens_serve_a_run_that_needs_none(sounds: Sounds, options: CacheOptions) -> None:
    data, model = sounds(), frozen_model()
    caches(model, data, options, matches=True)
    batch = next(iter(loader(data, caches(model, data, options))))
    assert batch.audio.keys() == {"pooled"}


def test_an_encoder_that_computes_something_else_is_refused(
    sounds: Sounds, options: CacheOptions
) -> None:
    """Its weights are the same: a release of a library may do that, or a setting of its own."""
    data, model = sounds(), frozen_model()
    caches(model, data, options)
    other = frozen_model()
    other.audio.encoder.fbank_mean = 3.0  # type: ignore[attr-defined]
    features = other.audio.encoder.features  # type: ignore[attr-defined]

    def louder(waveforms: torch.Tensor, lengths: torch.Tensor | None = None) -> Any:
        return features(20 * waveforms, lengths)

    other.audio.encoder.features = louder  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="what the encoder makes of a test input"):
        caches(other, data, options)


def test_a_changed_file_is_refused(sounds: Sounds, options: CacheOptions) -> None:
    data, model = sounds(), frozen_model()
    caches(model, data, options)
    path = data.clips("train")[4].source
    whole, rate = soundfile.read(path, dtype="int16")
    soundfile.write(path, whole[::-1], rate)
    with pytest.raises(InputError, match="clip 'clip4': its audio file .* has changed since"):
        caches(model, data, options)


def test_unreadable_clips_are_skipped_and_tried_again(
    sounds: Sounds, options: CacheOptions
) -> None:
    data, model = sounds(), frozen_model()
    path = Path(data.clips("train")[2].source)
    content = path.read_bytes()
    path.write_bytes(b"no sound")
    batches = loader(data, caches(model, data, options))
    ids = {int(x) for batch in batches for x in batch.clip_ids}
    assert list(batches.bad_clips.keys) == ["clip2"] and len(ids) == 8
    path.write_bytes(content)
    batches = loader(data, caches(model, data, options))
    assert len({int(x) for batch in batches for x in batch.clip_ids}) == 9
    assert not batches.bad_clips.keys


def test_a_damaged_file_is_written_again(sounds: Sounds, options: CacheOptions) -> None:
    data, model = sounds(), frozen_model()
    caches(model, data, options)
    path = options.folder / "clips-train" / "000000.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    caches(model, data, options)
    assert len(path.read_bytes()) == len(content)
    (options.folder / "clips-train" / "index.json").write_text("{")
    with pytest.raises(InputError, match=r"index\.json is not the index of cached outputs"):
        caches(model, data, options)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.7, 0.99], ids=str)
def test_a_flipped_bit_is_noticed_at_the_next_start(
    sounds: Sounds, options: CacheOptions, place: float
) -> None:
    data, model = sounds(), frozen_model()
    caches(model, data, options, matches=True)
    path = options.folder / "clips-train" / "000000.safetensors"
    whole = path.read_bytes()
    expected = load_file(path)
    broken = bytearray(whole)
    broken[int(place * len(whole))] ^= 1
    path.write_bytes(broken)
    said: list[str] = []
    caches(model, data, options, matches=True, say=said.append)
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert f"{path} is written again: it is damaged" in said[0]


def test_a_cache_of_an_earlier_release_is_refused(sounds: Sounds, options: CacheOptions) -> None:
    data, model = sounds(), frozen_model()
    caches(model, data, options)
    file = options.folder / "clips-train" / "index.json"
    file.write_text(file.read_text().replace("embedding cache 2", "embedding cache 1"))
    with pytest.raises(InputError, match="clips-train was written by an earlier release"):
        caches(model, data, options)


def test_the_size_is_said_before_and_a_full_disk_refused(
    sounds: Sounds, options: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = sounds(), frozen_model()
    said: list[str] = []
    caches(model, data, options, matches=True, say=said.append)
    # 9 clips, of which 2 are longer than 0.5 s and have three crops.
    shards = list((options.folder / "clips-train").glob("*.safetensors"))
    size = float(said[0].split("about ")[1].split(" kB")[0]) * 1000
    assert sum(x.stat().st_size for x in shards) == pytest.approx(size, rel=0.35)
    assert "9 of 9 clips are written, pooled (float32) and tokens (float16)" in said[0]
    shutil.rmtree(options.folder)
    usage = shutil.disk_usage("/")._replace(free=70_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"take .* kB and the disk has 70 kB free"):
        caches(model, data, options, matches=True)
    assert not options.folder.exists()


def test_the_size_is_told_by_the_longest_clip(
    sounds: Sounds, options: CacheOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of half a minute take no memory for ten."""
    data, model = sounds(), frozen_model()
    seconds: list[float] = []
    features = model.audio.encoder.features

    def counted(waveforms: torch.Tensor, lengths: torch.Tensor) -> Any:
        seconds.append(waveforms.size(1) / RATE)
        return features(waveforms, lengths)

    monkeypatch.setattr(model.audio.encoder, "features", counted)
    said: list[str] = []
    caches(model, data, options, matches=True, max_seconds=600.0, say=said.append)
    assert max(seconds) <= 1.0  # that of the probe
    shards = list((options.folder / "clips-train").glob("*.safetensors"))
    size = float(said[0].split("about ")[1].split(" kB")[0]) * 1000
    assert sum(x.stat().st_size for x in shards) == pytest.approx(size, rel=0.35)


def test_nothing_frozen_is_refused(sounds: Sounds, options: CacheOptions) -> None:
    with pytest.raises(
        InputError, match="none does: set `model.config_overrides.audio.freeze=all`"
    ):
        caches(frozen_model(audio=False, text=False), sounds(), options)
    partly = frozen_model(audio=False, text=False)
    freeze_encoder(partly.audio, 1)
    with pytest.raises(InputError, match="none does"):
        caches(partly, sounds(), options)
    with pytest.raises(
        InputError, match="`dataset.cache_crops` is 3, but the audio encoder trains"
    ):
        caches(frozen_model(audio=False), sounds(), options)


def test_what_changes_a_clip_in_every_step_is_refused(
    sounds: Sounds, options: CacheOptions
) -> None:
    model = frozen_model(spec_augment={})
    with pytest.raises(InputError, match="`model.config_overrides.spec_augment` changes"):
        caches(model, sounds(), options)
    with pytest.raises(InputError, match="`dataset.augment` changes"):
        check_frozen(frozen_model(), augments=True)
    check_frozen(frozen_model(audio=False), augments=True)  # only captions are cached
    data = sounds()
    outputs = caches(frozen_model(), data, options)
    with pytest.raises(InputError, match="augment changes waveforms"):
        loader(data, outputs, augment=AugmentConfig())


def test_an_encoder_of_nan_is_refused(sounds: Sounds, options: CacheOptions) -> None:
    model = frozen_model()
    with torch.no_grad():
        next(model.audio.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="clip 'clip0': the frozen encoder makes NaN"):
        caches(model, sounds(), options)


def test_rendered_clips(options: CacheOptions) -> None:
    def read(clip: Clip) -> np.ndarray:
        return np.random.default_rng(clip.source).normal(0, 0.1, 9_000).astype(np.float32)

    clips = [Clip(f"c{k}", (f"sound {k}",), k) for k in range(4)]
    data = AudioTextDataset("r", {"train": clips}, read=read, read_rate=RATE)
    data.read_with(AudioReader(RATE))
    outputs = caches(frozen_model(), data, options)
    assert outputs.clips is not None and outputs.clips.index.items == 4
    data.read = None  # nothing is rendered any more
    assert len(list(loader(data, outputs))) == 1


def test_batches_of_tokens_are_sorted_by_their_number_without_the_audio(
    sounds: Sounds, options: CacheOptions
) -> None:
    data, model = sounds(), frozen_model()
    outputs = caches(model, data, options, matches=True)
    options_of = {"bucket_by_length": 3, "max_seconds": SECONDS}
    first = loader(data, outputs, **options_of)
    next(first)
    rest = [batch.clip_ids.tolist() for batch in first]
    state = loader(data, outputs, **options_of)
    next(state)
    for clip in data.clips("train"):
        Path(str(clip.source)).unlink()
    again = loader(data, caches(model, data, options, matches=True), **options_of)
    again.load_state_dict(state.state_dict())
    batches = list(again)
    assert [batch.clip_ids.tolist() for batch in batches] == rest
    counts = outputs.lengths()
    assert counts is not None
    of = {data.clip_id(clip): n for clip, n in zip(data.clips("train"), counts, strict=True)}
    for batch in batches:
        tokens = batch.audio["tokens"].mask.sum(dim=1).tolist()
        assert tokens == [of[int(clip)] for clip in batch.clip_ids]
    # The nine are sorted as a whole: no batch overlaps another.
    spans = sorted(
        (min(of[i] for i in ids), max(of[i] for i in ids))
        for ids in (batch.clip_ids.tolist() for batch in loader(data, outputs, **options_of))
    )
    assert all(high <= low for (_, high), (low, _) in zip(spans, spans[1:], strict=False))


def test_vectors_have_no_length_to_sort_by(sounds: Sounds, options: CacheOptions) -> None:
    data = sounds()
    with pytest.raises(InputError, match="bucket_by_length is 3, but .* one vector"):
        loader(data, caches(frozen_model(), data, options), bucket_by_length=3)
