"""What a retriever computes: the same for a recording or a sentence, whatever comes with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import make_bundle, make_clap_bundle, make_public_clap, noise

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.retriever import AudioTextRetriever, read_bundle
from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize

KINDS: dict[str, Callable[[Path], Path]] = {
    "retrieval": make_bundle,
    "retrieval, official padding": lambda folder: make_bundle(folder, padding="official"),
    "clap": make_clap_bundle,
    "public clap": make_public_clap,
    "clap, fusion": lambda folder: make_clap_bundle(folder, fusion=True),
    "public clap, fusion": lambda folder: make_public_clap(folder, fusion=True),
}
WORDS = ["a", "dog", "barks", "far", "away", "rain", "siren"]


@pytest.fixture(scope="module", params=list(KINDS))
def retriever(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AudioTextRetriever:
    folder = KINDS[request.param](tmp_path_factory.mktemp("model") / "tiny")
    return AudioTextRetriever.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(400, 4_000), min_size=1, max_size=9),
    batch_size=st.integers(1, 5),
    data=st.data(),
)
def test_a_recording_has_one_embedding(
    retriever: AudioTextRetriever, lengths: list[int], batch_size: int, data: st.DataObject
) -> None:
    """Alone, in any batch and in any order; some are longer than a window."""
    waveforms = [noise(8 * n, seed) for seed, n in enumerate(lengths)]
    order = data.draw(st.permutations(range(len(waveforms))))
    retriever.batch_size = batch_size
    together = retriever.embed_audio([waveforms[i] for i in order], sample_rate=16_000)
    for row, i in enumerate(order):
        alone = retriever.embed_audio(waveforms[i], sample_rate=16_000)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
        min_size=1,
        max_size=20,
    ),
    data=st.data(),
)
def test_a_sentence_has_one_embedding(
    retriever: AudioTextRetriever, texts: list[str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    together = retriever.embed_text([texts[i] for i in order])
    for row, i in enumerate(order):
        alone = retriever.embed_text(texts[i])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_embeddings_are_unit_norm_float32_on_the_cpu(retriever: AudioTextRetriever) -> None:
    audio = retriever.embed_audio([noise(8_000), noise(40_000)], sample_rate=16_000)
    text = retriever.embed_text(["a dog barks", "rain"])
    for embeddings in (audio, text):
        assert embeddings.shape == (2, retriever.embed_dim)
        assert (embeddings.dtype, embeddings.device.type) == (torch.float32, "cpu")
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    assert not torch.allclose(audio[0], audio[1], atol=1e-4)


def test_nothing_is_drawn_at_random(retriever: AudioTextRetriever) -> None:
    wave = noise(8 * 3_000)
    first = retriever.embed_audio(wave, sample_rate=16_000)
    np.random.seed(1)
    torch.manual_seed(1)
    state = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    assert torch.equal(retriever.embed_audio(wave, sample_rate=16_000), first)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[union-attr]


def test_nothing_is_embedded_as_nothing(retriever: AudioTextRetriever) -> None:
    assert retriever.embed_audio([]).shape == (0, retriever.embed_dim)
    assert retriever.embed_text([]).shape == (0, retriever.embed_dim)
    assert retriever.embed_windows([]).shape == (0, retriever.embed_dim)


def whole_model(folder: Path) -> RetrievalModel:
    bundle = read_bundle(folder)
    model = build_model(model_config(bundle.config.model))
    model.load_state_dict(bundle.state)
    return model.eval()


def test_it_computes_what_the_model_computes(bundle: Path, tmp_path: Path) -> None:
    """A clip of a window at most is whole, as in an evaluation."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    model = whole_model(bundle)
    waves = [noise(5_000, 1), noise(16_000, 2), noise(9_000, 3)]
    texts = ["a dog barks", "rain", "a siren far away"]
    with torch.no_grad():
        audio = [model.audio(torch.from_numpy(wave)[None]) for wave in waves]
        tokens = tokenize(load_tokenizer(str(bundle / "tokenizer")), texts, 16)
        u, text = model.text(*tokens)
        logits = [
            model.match(type(text)(*(x[i : i + 1] for x in text)), audio[i][1]) for i in range(3)
        ]
    a = torch.cat([embedding for embedding, _ in audio])
    found = retriever.embed_audio(waves, sample_rate=16_000)
    torch.testing.assert_close(found, a, atol=1e-5, rtol=0)
    torch.testing.assert_close(retriever.embed_text(texts), u, atol=1e-5, rtol=0)
    log_odds = torch.cat(logits)[:, 1] - torch.cat(logits)[:, 0]
    match = retriever.match(texts, waves, sample_rate=16_000)
    torch.testing.assert_close(match, log_odds, atol=1e-5, rtol=0)
    torch.testing.assert_close(retriever.match_windows(texts, waves), log_odds, atol=1e-5, rtol=0)


def test_a_long_recording_is_the_mean_of_its_windows(retriever: AudioTextRetriever) -> None:
    wave = noise(round(2.5 * retriever.sample_rate))
    windows = list(retriever.windows(wave, retriever.sample_rate))
    assert [(x.start, x.end) for x in windows] == [(0, 1), (1, 2), (1.5, 2.5)]
    each = torch.from_numpy(retriever.embed_windows([x.waveform for x in windows]))
    mean = torch.nn.functional.normalize(each.mean(dim=0), dim=0)
    found = retriever.embed_audio(wave, sample_rate=retriever.sample_rate)[0]
    torch.testing.assert_close(found, mean, atol=1e-5, rtol=0)


def test_a_long_recording_matches_by_its_best_window(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu", batch_size=1)
    long, short = noise(90_000, 1), noise(9_000, 2)  # more windows than are taken at once
    waveforms = [x.waveform for x in retriever.windows(long, 16_000)]
    each = retriever.match_windows(["rain"] * len(waveforms), waveforms)
    found = retriever.match("rain", [short, long, short], sample_rate=16_000)
    torch.testing.assert_close(found[1], each.max(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0], found[2])
    assert each.max() - each.min() > 1e-4


def test_only_a_trained_head_matches(tmp_path: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(make_public_clap(tmp_path / "clap"))
    assert not retriever.can_match
    with pytest.raises(InputError, match="clap has no trained matching head"):
        retriever.match("rain", noise(9_000), sample_rate=16_000)
    with pytest.raises(InputError, match="has no trained matching head"):
        retriever.match_windows(["rain"], [noise(4_000)])


def test_pairs_have_two_sides(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    with pytest.raises(InputError, match="there are 2 sentences for 1 recordings"):
        retriever.match(["rain", "a dog"], noise(9_000), sample_rate=16_000)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_half_precision_is_near(kind: str, dtype: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path / "tiny")
    exact = AudioTextRetriever.from_pretrained(folder, device="cpu")
    half = AudioTextRetriever.from_pretrained(folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    waves = [noise(8_000 * n, n) for n in (1, 2, 5)]
    found = half.embed_audio(waves, sample_rate=16_000)
    assert found.dtype == half.embed_text("rain").dtype == torch.float32
    cosines = (found * exact.embed_audio(waves, sample_rate=16_000)).sum(dim=1)
    assert cosines.min() > 0.999
    if exact.can_match:
        found = half.match("rain", waves, sample_rate=16_000)
        expected = exact.match("rain", waves, sample_rate=16_000)
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_arguments_that_cannot_be(bundle: Path) -> None:
    load = AudioTextRetriever.from_pretrained
    with pytest.raises(InputError, match="`dtype` is 'float64', expected one of float32, bfloat"):
        load(bundle, dtype="float64")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`batch_size` is 0, expected 1 or more"):
        load(bundle, batch_size=0)
    with pytest.raises(InputError, match="`device` is 'gpu', which cannot be used: "):
        load(bundle, device="gpu")


def test_windows_are_checked(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    with pytest.raises(InputError, match=r"waveform 1 has the shape \[16001\], expected at most"):
        retriever.embed_windows([noise(16_000), noise(16_001)])
    with pytest.raises(InputError, match="the model's result for waveform 0 is not finite"):
        retriever.embed_windows([noise(16_000) * np.float32("nan")])
    for waveform, message in (
        (
            (noise(16_000) * 32_767).astype(np.int16),
            "waveform 0 has int16, expected floats from -1 to 1",
        ),
        (noise(16_001), r"\[16001\], expected at most"),
        (noise(16_000)[None], r"\[1, 16000\], expected at most"),
    ):
        for call in (retriever.embed_windows, lambda x: retriever.match_windows(["a dog"], x)):
            with pytest.raises(InputError, match=message):
                call([waveform])


def test_a_sentence_without_a_word_is_named_by_its_own_number(bundle: Path) -> None:
    """It was that in the part that is tokenized at once, or among the distinct sentences."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu", batch_size=1)
    with pytest.raises(InputError, match=r"Caption 4150 \(' '\) holds no word"):
        retriever.embed_text([" " if i == 4_150 else WORDS[i % 7] for i in range(4_200)])
    pairs = ["rain", "rain", "a dog", "rain", "rain", " ", " "]
    wave = noise(9_000)
    with pytest.raises(InputError, match=r"Caption 5 \(' '\) holds no word"):
        retriever.match_windows(pairs, [wave] * 7)
    with pytest.raises(InputError, match=r"Caption 5 \(' '\) holds no word"):
        retriever.match(pairs, [wave] * 7, sample_rate=16_000)
    assert retriever.match([], []).shape == (0,)


def test_what_the_model_cannot_compute_is_named_by_its_own_number(
    bundle: Path, tmp_path: Path
) -> None:
    """It was the number of the waveform in the part that is computed at once."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu", batch_size=4)
    loud, quiet = np.full(3_200, 0.75, np.float32), np.full(3_200, 0.5, np.float32)
    audio, text = retriever._runner._audio, retriever._runner._text

    def overflow(waveforms: Sequence[np.ndarray]) -> Any:
        rows, tokens = audio(waveforms)
        scale = torch.tensor([[torch.nan if (x > 0.7).any() else 1.0] for x in waveforms])
        return rows * scale, tokens._replace(states=tokens.states * scale[:, None])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever._runner, "_audio", overflow)
        sounds: list[Any] = [quiet] * 37 + [loud] + [quiet] * 4
        for call in (
            lambda: retriever.embed_audio(sounds, sample_rate=16_000),
            lambda: retriever.match("rain", sounds, sample_rate=16_000),
        ):
            with pytest.raises(InputError, match="result for recording 37 is not finite"):
                call()
        file = tmp_path / "loud.wav"
        soundfile.write(file, loud, 16_000)
        sounds[37] = file
        long = (np.concatenate([quiet] * 15), 16_000)  # several windows before it
        named = rf"result for recording 38 \({file}\) is not finite: look at it"
        with pytest.raises(InputError, match=named):
            retriever.embed_audio([long, *sounds], sample_rate=16_000)
        with pytest.raises(InputError, match="result for waveform 37 is not finite"):
            retriever.embed_windows([quiet] * 37 + [loud])
        with pytest.raises(InputError, match="result for waveform 37 is not finite"):
            retriever.match_windows(["rain"] * 38, [quiet] * 37 + [loud])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever._runner, "_text", lambda *x: (text(*x)[0] * torch.nan, None))
        with pytest.raises(InputError, match=r"result for sentence 0 \('rain'\) is not finite"):
            retriever.embed_text(["rain", "a dog"])


def test_a_sentence_that_is_no_text_is_named(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    for texts in ("\ud800 dog", ["\ud800 dog"]):
        with pytest.raises(InputError):
            retriever.match(texts, [(noise(16_000), 16_000)])


def test_revisions_that_contradict(bundle: Path) -> None:
    load = AudioTextRetriever.from_pretrained
    with pytest.raises(InputError, match="is a folder, which has no revisions"):
        load(bundle, revision="main")
    with pytest.raises(InputError, match="names the revision 'v1', and `revision` 'v2': give"):
        load("someone/model@v1", revision="v2", local_files_only=True)


@pytest.mark.filterwarnings("ignore:1 of 1 sentences are longer")
def test_sentences_of_any_kind(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    with pytest.raises(InputError, match=r"Caption 1 \(' '\) holds no word"):
        retriever.embed_text(["rain", " "])
    with pytest.raises(InputError, match="holds no word"):
        retriever.embed_text("")
    with pytest.raises(InputError, match="sentence 1 is a int, not a string"):
        retriever.embed_text(["rain", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="sentence 0 .* has half of a character"):
        retriever.embed_text("rain \ud83d")
    assert retriever.embed_text("<b onclick='rain()'>rain</b>").isfinite().all()


def test_words_that_the_tokenizer_does_not_know(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    with pytest.warns(UserWarning, match="the model knows no word of 1 of 2 sentences, such as"):
        retriever.embed_text(["rain", "€ €"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retriever.embed_text(["rain Ω"])


def test_a_long_sentence_is_cut_with_one_warning(bundle: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle)
    long = "rain " * 5_000
    with pytest.warns(UserWarning, match="1 of 2 sentences are longer than the model's 16") as got:
        both = retriever.embed_text([long, "rain"])
    assert len(got) == 1
    retriever.batch_size = 1  # more parts than one
    pairs = [long, "rain", long, "a dog", f"{long}rain", "rain"]
    with pytest.warns(UserWarning, match="2 of 4 sentences are longer than the model's 16") as got:
        retriever.match(pairs, [noise(9_000)] * 6, sample_rate=16_000)
    assert len(got) == 1 and got[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(retriever.embed_text("rain")[0], both[1])


def test_the_package_has_it() -> None:
    import atr_moco_plugin

    assert atr_moco_plugin.AudioTextRetriever is AudioTextRetriever
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        atr_moco_plugin.nothing  # noqa: B018


@pytest.mark.filterwarnings("ignore:1 of 1 sentences are longer")
def test_threads_share_a_retriever(bundle: Path) -> None:
    """As those of a server do. A tokenizer keeps whether it cuts, and is told to for one sentence
    and not to for the next."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    texts = ["rain " * (1 + 400 * (n % 3)) for n in range(90)]
    expected = [retriever.embed_text(text) for text in texts[:3]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(retriever.embed_text, texts))
    for number, row in enumerate(found):
        torch.testing.assert_close(row, expected[number % 3], atol=1e-5, rtol=0)
