"""An index asked by its retriever: the best windows by cosine, and of this model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bundle import make_bundle, write_noise

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.build import build, index_info
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.sources import list_sounds
from atr_moco_plugin.search.store import Filter


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> AudioTextRetriever:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    return AudioTextRetriever.from_pretrained(make_bundle(folder), device="cpu")


@pytest.fixture(scope="module")
def index(retriever: AudioTextRetriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    (folder / "sounds").mkdir()
    for seed in range(6):
        write_noise(folder / "sounds" / f"{seed}.wav", 0.6 + 0.05 * seed, seed=seed)
    info = index_info(retriever)
    with open_index(folder / "index", write=True, info=info) as store:
        build(store, retriever, list_sounds(folder / "sounds"))
    return folder


def files(index: Path) -> list[Path]:
    return sorted((index / "sounds").iterdir())


def test_the_best_by_cosine(retriever: AudioTextRetriever, index: Path) -> None:
    cosines = (retriever.embed_audio(files(index)) @ retriever.embed_text("rain").T).flatten()
    best = cosines.sort(descending=True)
    hits = retriever.search("rain", index / "index", 3)
    assert [Path(hit.recording.path).name for hit in hits] == [
        f"{number}.wav" for number in best.indices[:3].tolist()
    ]
    assert [hit.score for hit in hits] == pytest.approx(best.values[:3].tolist(), abs=1e-3)
    with open_index(index / "index") as store:
        assert retriever.search("rain", store, 3) == hits
    few = retriever.search("rain", str(index / "index"), only=Filter(path="*/[12].wav"))
    assert {Path(hit.recording.path).name for hit in few} == {"1.wav", "2.wav"}


@pytest.mark.parametrize("k", [1.5, "3", True, None])
def test_a_number_of_hits_that_is_none(retriever: AudioTextRetriever, index: Path, k: Any) -> None:
    with pytest.raises(InputError, match=f"`k` is {k!r}, expected 1 or more, a whole number"):
        retriever.search("rain", index / "index", k)


def test_a_sound_as_the_query(retriever: AudioTextRetriever, index: Path) -> None:
    for file in files(index):
        best = retriever.search(retriever.embed_audio(file), index / "index", 1)[0]
        assert best.recording.path == str(file)
        assert best.score == pytest.approx(1, abs=1e-3)


def test_a_query_in_any_dtype_and_with_a_gradient(
    retriever: AudioTextRetriever, index: Path
) -> None:
    query = retriever.embed_text("rain")
    best = retriever.search(query, index / "index", 1)[0]
    for other in (query.clone().requires_grad_(), query.double()):
        assert retriever.search(other, index / "index", 1)[0] == best
    half = retriever.search(query.bfloat16(), index / "index", 1)[0]
    assert half.cosine == pytest.approx(best.cosine, abs=0.02)


def test_a_mean_of_embeddings_as_the_query(retriever: AudioTextRetriever, index: Path) -> None:
    some = retriever.embed_audio(files(index)[:4])
    with pytest.raises(InputError, match=r"the length [34]\S*, .* mean_embeddings of"):
        retriever.search(some.sum(dim=0, keepdim=True), index / "index")
    mean = retriever.mean_embeddings(some.sum(dim=0, keepdim=True))
    best = retriever.search(mean, index / "index", 1)[0]
    row = int(Path(best.recording.path).stem)
    cosine = float(mean[0] @ retriever.embed_audio(files(index)[row])[0])
    assert best.cosine == pytest.approx(cosine, abs=1e-3)


def test_several_sentences(retriever: AudioTextRetriever, index: Path) -> None:
    hits = retriever.search(["rain", "a dog"], index / "index", unwanted=["a siren"])
    assert len({hit.recording.path for hit in hits}) == len(hits) == 6


def test_re_ranked_as_an_evaluation_does(retriever: AudioTextRetriever, index: Path) -> None:
    hits = retriever.search("rain", index / "index", 4, rerank=True)
    cosines = (retriever.embed_audio(files(index)) @ retriever.embed_text("rain").T).flatten()
    scores = retriever.match("rain", files(index)) + cosines / retriever.temperature
    best = scores.sort(descending=True)
    assert [Path(hit.recording.path).name for hit in hits] == [
        f"{number}.wav" for number in best.indices[:4].tolist()
    ]
    found = torch.tensor([hit.reranked for hit in hits])
    torch.testing.assert_close(found, best.values[:4], atol=0.02, rtol=0)


def test_queries_that_cannot_be(retriever: AudioTextRetriever, index: Path, tmp_path: Path) -> None:
    place = index / "index"
    with pytest.raises(InputError, match="holds no word"):
        retriever.search("", place)
    with pytest.raises(InputError, match="there is nothing to search for"):
        retriever.search([], place)
    with pytest.raises(InputError, match="`k` is 0, expected 1 or more"):
        retriever.search("rain", place, 0)
    with pytest.raises(InputError, match="re-ranking reads one sentence"):
        retriever.search(["rain", "a dog"], place, rerank=True)
    with pytest.raises(
        InputError, match=r"the query has the shape \[1, 3\], expected \[queries, 12\]"
    ):
        retriever.search(torch.ones(1, 3), place)
    with pytest.raises(InputError, match="nowhere"):
        retriever.search("rain", tmp_path / "nowhere")


def test_an_index_of_another_model(index: Path, tmp_path: Path) -> None:
    other = AudioTextRetriever.from_pretrained(make_bundle(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match=r"index was made with the model .*/tiny \(fingerprint"):
        other.search("rain", index / "index")
    with open_index(index / "index") as store:
        with pytest.raises(InputError, match="The index was made with the model"):
            other.search("rain", store)
