"""A bundle of the kind ``clap`` as a plain ClapModel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundle import SENTENCES, make_bundle, make_clap_bundle, noise
from tokenizers import ByteLevelBPETokenizer
from torch.nn.functional import normalize
from trainer_world import make_clap, make_extractor
from transformers import (
    AutoTokenizer,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    RobertaTokenizerFast,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting import export_clap
from atr_moco_plugin.retriever import AudioTextRetriever

SAME = 1e-5
RATE = 8_000


@pytest.mark.parametrize("fusion", [False, True])
def test_embeddings_are_those_of_the_bundle(tmp_path: Path, fusion: bool) -> None:
    bundle = make_clap_bundle(tmp_path / "bundle", fusion)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    export_clap(retriever, tmp_path / "clap")

    clap = ClapModel.from_pretrained(tmp_path / "clap").eval()
    extractor = ClapFeatureExtractor.from_pretrained(tmp_path / "clap")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "clap")
    clips = [noise(RATE), noise(RATE // 2, seed=1)]
    features = extractor(clips, sampling_rate=RATE, return_tensors="pt")["input_features"]
    tokens = tokenizer(SENTENCES, padding=True, truncation=True, max_length=38, return_tensors="pt")
    with torch.no_grad():
        audio = _embeddings(
            # The extractor marks one clip at random as longer, and none is.
            clap.get_audio_features(features, is_longer=torch.zeros(2, 1, dtype=torch.bool))
        )
        text = _embeddings(clap.get_text_features(tokens["input_ids"], tokens["attention_mask"]))

    expected = retriever.embed_audio(clips, sample_rate=RATE)
    torch.testing.assert_close(audio, expected, atol=SAME, rtol=0)
    torch.testing.assert_close(text, retriever.embed_text(SENTENCES), atol=SAME, rtol=0)


def test_it_is_a_public_model_of_the_same_temperature(tmp_path: Path) -> None:
    bundle = make_clap_bundle(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    export_clap(retriever, tmp_path / "clap")
    again = AudioTextRetriever.from_pretrained(tmp_path / "clap", device="cpu")
    assert again.temperature == pytest.approx(retriever.temperature)
    assert not again.can_match
    clip = noise(3 * RATE)
    torch.testing.assert_close(
        again.embed_audio(clip, sample_rate=RATE),
        retriever.embed_audio(clip, sample_rate=RATE),
        atol=SAME,
        rtol=0,
    )


def test_the_longest_sentence_is_the_bundles_and_windows_that_are_lost_are_said(
    tmp_path: Path,
) -> None:
    bundle = make_clap_bundle(
        tmp_path / "bundle", window_seconds=0.5, hop_seconds=0.25, max_tokens=6
    )
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    said = "windows of 0.5 s, one every 0.25 s, .* has its feature extractor's 1 s"
    with pytest.warns(UserWarning, match=said):
        export_clap(retriever, tmp_path / "clap")
    again = AudioTextRetriever.from_pretrained(tmp_path / "clap", device="cpu")
    long = "a siren wails, then a dog barks far away"
    torch.testing.assert_close(again.embed_text(long), retriever.embed_text(long))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "clap")
    assert len(tokenizer(long, truncation=True)["input_ids"]) == 6
    short = noise(RATE // 2)
    torch.testing.assert_close(
        again.embed_audio(short, sample_rate=RATE), retriever.embed_audio(short, sample_rate=RATE)
    )


def test_windows_that_are_the_feature_extractors_are_not_warned_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    bundle = make_clap_bundle(tmp_path / "bundle")
    export_clap(AudioTextRetriever.from_pretrained(bundle, device="cpu"), tmp_path / "clap")
    assert not [x for x in recwarn if "windows of" in str(x.message)]


@pytest.fixture
def public_clap(tmp_path: Path) -> Path:
    """A ClapModel with a tokenizer of RoBERTa's kind, as the public ones have."""
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=special)
    folder = tmp_path / "public"
    folder.mkdir()
    tokenizer.save_model(str(folder))
    roberta = RobertaTokenizerFast.from_pretrained(folder)
    for part in (make_clap(len(roberta)), make_extractor(1), roberta):
        part.save_pretrained(folder)
    return folder


def test_the_processor_loads_from_the_folder(tmp_path: Path, public_clap: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(public_clap, device="cpu")
    export_clap(retriever, tmp_path / "clap")
    processor = ClapProcessor.from_pretrained(tmp_path / "clap")
    clap = ClapModel.from_pretrained(tmp_path / "clap").eval()
    tokens = processor(text=SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = _embeddings(clap.get_text_features(**tokens))
    torch.testing.assert_close(found, retriever.embed_text(SENTENCES), atol=SAME, rtol=0)
    assert processor.feature_extractor.sampling_rate == RATE


def test_sentence_transformers_loads_the_folder_by_itself(
    tmp_path: Path, public_clap: Path
) -> None:
    library = pytest.importorskip("sentence_transformers", reason="it is not installed")
    retriever = AudioTextRetriever.from_pretrained(public_clap, device="cpu")
    export_clap(retriever, tmp_path / "clap")
    model = library.SentenceTransformer(str(tmp_path / "clap"), device="cpu")
    clips = [noise(RATE), noise(RATE // 2, seed=1)]
    sounds = [{"array": x, "sampling_rate": RATE} for x in clips]
    for given, expected in (
        (sounds, retriever.embed_audio(clips, sample_rate=RATE)),
        (SENTENCES, retriever.embed_text(SENTENCES)),
    ):
        found = model.encode(given, normalize_embeddings=True)
        np.testing.assert_allclose(found, expected.numpy(), atol=SAME)


def test_other_models_are_refused_by_the_names_of_their_encoders(tmp_path: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(make_bundle(tmp_path / "bundle"), device="cpu")
    with pytest.raises(InputError, match="'beats' and 'bert'"):
        export_clap(retriever, tmp_path / "clap")
    assert not (tmp_path / "clap").exists()


def _embeddings(found: object) -> torch.Tensor:
    """transformers 5 returns them within an output."""
    pooled = getattr(found, "pooler_output", found)
    assert isinstance(pooled, torch.Tensor)
    return normalize(pooled, dim=-1)
