"""mteb evaluates an exported model, and finds what this package's evaluation finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bundle import make_bundle, noise

from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.exporting import export_sentence_transformers
from atr_moco_plugin.retriever import AudioTextRetriever

# They want transformers 5: `tests/matrix.sh FOLDER transformers` runs these.
pytest.importorskip("sentence_transformers", reason="sentence-transformers 6 is not installed")
mteb = pytest.importorskip("mteb", reason="mteb is not installed")

RATE = 16_000
CLIPS, CAPTIONS = 24, 2
WORDS = ["a", "dog", "barks", "far", "away", "rain", "falls", "on", "tin", "roof", "siren", "wails"]


def _clips() -> list[np.ndarray[Any, Any]]:
    return [noise(6_000 + 900 * i, seed=i) for i in range(CLIPS)]


def _captions() -> list[str]:
    random = np.random.default_rng(0)
    count = CLIPS * CAPTIONS
    captions = [" ".join(random.permutation(WORDS)[: 3 + i % 6]) for i in range(count)]
    assert len(set(captions)) == count
    return captions


def _task(audio_asks: bool) -> Any:
    """An audio-text retrieval task of decoded arrays in memory."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Sounds(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="GeneratedSoundsA2T" if audio_asks else "GeneratedSoundsT2A",
            description="Noise, and sentences of random words.",
            reference=None,
            dataset={"path": "in/memory", "revision": "1"},
            type="Any2AnyRetrieval",
            category="a2t" if audio_asks else "t2a",
            modalities=["audio", "text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="hit_rate_at_5",
            date=("2026-01-01", "2026-01-01"),
            domains=["Written"],
            task_subtypes=[],
            license="mit",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, **_: Any) -> None:
            if self.data_loaded:
                return
            sounds = [{"array": x.tolist(), "sampling_rate": RATE} for x in _clips()]
            audio = Dataset.from_dict({"id": [f"a{i}" for i in range(CLIPS)], "audio": sounds})
            captions = _captions()
            names = [f"t{i}" for i in range(len(captions))]
            text = Dataset.from_dict({"id": names, "text": captions})
            queries, corpus = (audio, text) if audio_asks else (text, audio)
            relevant: dict[str, dict[str, int]] = {}
            for i, name in enumerate(names):
                query, document = (f"a{i // CAPTIONS}", name)
                if not audio_asks:
                    query, document = document, query
                relevant.setdefault(query, {})[document] = 1
            self.queries = DatasetDict({"test": queries})
            self.corpus = DatasetDict({"test": corpus})
            self.relevant_docs = {"test": relevant}
            self.data_loaded = True

    return Sounds()


@pytest.mark.parametrize("audio_asks", [True, False], ids=["a2t", "t2a"])
def test_hit_rates_are_those_of_this_package(audio_asks: bool, tmp_path: Path) -> None:
    from mteb.models import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    retriever = AudioTextRetriever.from_pretrained(
        make_bundle(tmp_path / "bundle", seed=3), device="cpu"
    )
    export_sentence_transformers(retriever, tmp_path / "exported")
    model = SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    encoder = SentenceTransformerEncoderWrapper(model, target_sampling_rate=retriever.sample_rate)
    # mteb asks a model on the hub what it takes, and believes a local one to take text alone.
    takes = {"modalities": ["audio", "text"]}
    encoder.mteb_model_meta = encoder.mteb_model_meta.model_copy(update=takes)

    result = mteb.evaluate(encoder, _task(audio_asks), cache=None, show_progress_bar=False)

    scores = result.task_results[0].scores["test"][0]
    audio = retriever.embed_audio(_clips(), sample_rate=RATE)
    cosines = audio @ retriever.embed_text(_captions()).T
    assert len(cosines.flatten().unique()) == cosines.numel(), "a tie: take another seed"
    owner = torch.arange(CLIPS * CAPTIONS) // CAPTIONS
    ours = retrieval_metrics(cosines, owner)
    way = "a2t" if audio_asks else "t2a"
    for k in (1, 5, 10):
        assert scores[f"hit_rate_at_{k}"] == pytest.approx(ours[f"{way}_r{k}"] / 100, abs=1e-5)
    assert 0 < ours[f"{way}_r10"] < 100
