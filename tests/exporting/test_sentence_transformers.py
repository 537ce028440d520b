"""A bundle as a model of sentence-transformers: the same embeddings, loaded without code."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_bundle import SENTENCES, make_bundle, make_clap_bundle, noise, write_noise
from transformers import AutoModel, AutoProcessor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting import export_sentence_transformers
from atr_moco_plugin.retriever import AudioTextRetriever

# sentence-transformers 6 wants transformers 5, so the environment with fairseq2 has none:
# `tests/matrix.sh FOLDER transformers` runs these.
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers 6 is not installed",
)
SAME = 1e-5


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> AudioTextRetriever:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", hop_seconds=0.5)
    return AudioTextRetriever.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def folder(retriever: AudioTextRetriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_sentence_transformers(retriever, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Shorter and longer than a window of 1 s, of several rates."""
    lengths = [(0.4, 16_000), (3.3, 44_100), (1.0, 8_000), (1.7, 16_000)]
    files = [
        write_noise(tmp_path / f"{i}.wav", seconds, rate, seed=i)
        for i, (seconds, rate) in enumerate(lengths)
    ]
    return [str(file) for file in files]


def test_the_folder_has_no_code_and_names_modules_of_the_library_alone(folder: Path) -> None:
    assert not list(folder.rglob("*.py"))
    modules = json.loads((folder / "modules.json").read_text())
    assert all(x["type"].startswith("sentence_transformers.") for x in modules)
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


def test_transformers_loads_it(
    folder: Path, retriever: AudioTextRetriever, recordings: list[str]
) -> None:
    """What sentence-transformers calls, in any environment."""
    model = AutoModel.from_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(folder)
    text = model.get_text_features(**processor(text=SENTENCES))
    audio = model.get_audio_features(**processor(audio=recordings))
    torch.testing.assert_close(text, retriever.embed_text(SENTENCES), atol=SAME, rtol=0)
    torch.testing.assert_close(audio, retriever.embed_audio(recordings), atol=SAME, rtol=0)


@pytest.mark.parametrize("text", ["missing.wav", "sounds of/the rain.opus"])
def test_a_sentence_that_is_the_name_of_a_sound_is_refused(folder: Path, text: str) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    with pytest.raises(InputError, match="no such file"):
        processor(text=["a dog", text])


def test_a_sound_that_would_be_taken_for_a_sentence_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    file = tmp_path / "bark.aiff"
    soundfile.write(file, noise(16_000), 16_000)
    with pytest.raises(InputError, match='"audio"'):
        processor(text=[str(file)])
    processor(text=["play bark.wav"])


def test_an_array_needs_its_rate(folder: Path) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    with pytest.raises(InputError, match="sampling_rate"):
        processor(audio=[noise(16_000)])


def test_a_folder_that_holds_something_is_left_alone(
    retriever: AudioTextRetriever, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        export_sentence_transformers(retriever, tmp_path)
    assert [x.name for x in tmp_path.iterdir()] == ["notes.txt"]


@needs_library
class TestLibrary:
    def test_sentences(self, model: Any, retriever: AudioTextRetriever) -> None:
        expected = retriever.embed_text(SENTENCES).numpy()
        np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=SAME)
        np.testing.assert_allclose(model.encode(SENTENCES[0]), expected[0], atol=SAME)
        np.testing.assert_allclose(model.encode_query(SENTENCES), expected, atol=SAME)

    def test_files_of_any_length_and_rate(
        self, model: Any, retriever: AudioTextRetriever, recordings: list[str]
    ) -> None:
        expected = retriever.embed_audio(recordings).numpy()
        found = model.encode(recordings, batch_size=3)
        np.testing.assert_allclose(found, expected, atol=SAME)

    def test_arrays(self, model: Any, retriever: AudioTextRetriever) -> None:
        arrays = [noise(n, seed=n) for n in (9_000, 40_000, 16_000)]
        sounds = [{"array": x, "sampling_rate": 22_050} for x in arrays]
        expected = retriever.embed_audio(arrays, sample_rate=22_050).numpy()
        np.testing.assert_allclose(model.encode(sounds), expected, atol=SAME)
        wrapped = [{"audio": x} for x in sounds]
        np.testing.assert_allclose(model.encode_document(wrapped), expected, atol=SAME)

    def test_two_channels_and_integers(self, model: Any, retriever: AudioTextRetriever) -> None:
        stereo = (np.stack([noise(16_000, 1), noise(16_000, 2)]) * 2**14).astype(np.int16)
        found = model.encode([{"array": stereo, "sampling_rate": 16_000}])
        expected = retriever.embed_audio([stereo], sample_rate=16_000).numpy()
        np.testing.assert_allclose(found, expected, atol=SAME)

    def test_a_format_that_the_library_does_not_know(
        self, model: Any, retriever: AudioTextRetriever, tmp_path: Path
    ) -> None:
        file = str(tmp_path / "bark.aiff")
        soundfile.write(file, noise(16_000), 16_000)
        found = model.encode([{"audio": file}])
        np.testing.assert_allclose(found, retriever.embed_audio(file).numpy(), atol=SAME)

    def test_what_it_says_of_itself(self, model: Any, retriever: AudioTextRetriever) -> None:
        assert set(model.modalities) == {"text", "audio"}
        assert model.get_embedding_dimension() == retriever.embed_dim
        assert model.similarity_fn_name == "cosine"

    def test_saved_and_loaded_again(self, model: Any, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer

        model.save_pretrained(str(tmp_path / "again"))
        again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
        np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))

    def test_half_precision(self, folder: Path, model: Any, recordings: list[str]) -> None:
        from sentence_transformers import SentenceTransformer

        half = SentenceTransformer(
            str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16}
        )
        found, expected = half.encode(recordings), model.encode(recordings)
        assert not np.array_equal(found, expected)
        np.testing.assert_allclose(found, expected, atol=0.05)

    def test_a_clap_model(self, tmp_path: Path, recordings: list[str]) -> None:
        from sentence_transformers import SentenceTransformer

        bundle = make_clap_bundle(tmp_path / "clap")
        retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
        export_sentence_transformers(retriever, tmp_path / "out")
        model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
        expected = retriever.embed_audio(recordings).numpy()
        np.testing.assert_allclose(model.encode(recordings), expected, atol=SAME)

    def test_from_the_cache_of_the_hub(self, folder: Path, model: Any, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer

        commit = "0" * 40
        place = tmp_path / "models--someone--sounds"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(commit)
        (place / "snapshots").mkdir()
        (place / "snapshots" / commit).symlink_to(folder)
        found = SentenceTransformer(
            "someone/sounds", device="cpu", cache_folder=str(tmp_path), local_files_only=True
        )
        np.testing.assert_array_equal(found.encode(SENTENCES), model.encode(SENTENCES))

    @pytest.mark.slow
    def test_two_lines_in_a_new_process(self, folder: Path) -> None:
        """As the README of the folder says; and without its first line it is no known model."""
        lines = [
            "import atr_moco_plugin.exporting.sentence_transformers",
            "from sentence_transformers import SentenceTransformer",
            f"print(SentenceTransformer({str(folder)!r}, device='cpu').encode('a dog').shape)",
        ]
        good, bad = (
            subprocess.run([sys.executable, "-c", "\n".join(x)], capture_output=True, text=True)
            for x in (lines, lines[1:])
        )
        assert good.returncode == 0 and good.stdout.strip() == "(12,)", good.stderr
        assert bad.returncode == 1 and "model type `atr_moco_plugin`" in bad.stderr
