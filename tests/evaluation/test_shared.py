"""Two processes that share clips, captions and pairs find to the last bit what one finds.

The two gloo processes run this file as a script, once for all tests; pytest runs the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import process_group, run_on_ranks
from retrieval import retrieval_figures

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.candidates import find_pairs, match_pairs
from atr_moco_plugin.evaluation.captions import distinct_captions
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encode import encode_shared, share
from atr_moco_plugin.evaluation.relevance import CaptionRelevance

WORLD = 2
CLIPS, CAPTIONS, K = 7, 17, 3
# With 4 clips a batch both processes have one, with 3 the second has fewer, with 7 it has none.
CASES = [(4, "blip"), (3, "albef"), (7, "blip")]


def evaluate(make_model: Callable[..., Any], make_batch: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size, fusion in CASES:
        model = make_model(fusion=fusion).eval()
        audio, text = make_batch(b=CLIPS, seed=1)["audio"], make_batch(b=CAPTIONS, seed=2)["text"]
        captions = distinct_captions(text["input_ids"], text["mask"], size)
        rows = torch.arange(CLIPS).split(size)
        done: list[int] = []
        encoded_text = encode_shared(
            model.text,
            [captions.batches[i] for i in share(len(captions.batches))],
            len(captions.batches),
            rows=captions.rows,
            keep_tokens=True,
            gather_states=True,
        )
        encoded_audio = encode_shared(
            model.audio,
            [(audio["waveforms"][rows[i]], audio["lengths"][rows[i]]) for i in share(len(rows))],
            len(rows),
            keep_tokens=True,
            gather_states=False,
            advance=done.append,
        )
        cosines = Cosines(encoded_audio, encoded_text)
        pairs = find_pairs(cosines, encoded_text, K)
        asked: list[int] = []
        candidates = match_pairs(
            model, encoded_audio, encoded_text, pairs, batch_size=5, advance=asked.append
        )
        relevance = CaptionRelevance(torch.arange(CAPTIONS) % CLIPS, CLIPS)
        found[f"{size} {fusion}"] = {
            "embeddings": [encoded_audio.embeddings, encoded_text.embeddings],
            "candidates": [x for found_there in candidates.values() for x in found_there],
            "figures": retrieval_figures(
                cosines, {"": relevance}, candidates=candidates, rerank_k=[2, K]
            ),
            "encoded": sum(done),
            "kept": encoded_audio.kept.tolist(),
            "asked": sum(asked),
            "pairs": len(pairs.numbers),
        }
    return found


def broken_off(
    own_rank: int, make_model: Callable[..., Any], make_batch: Callable[..., Any]
) -> str:
    """What a process is told when the last one cannot read its second batch."""
    audio = make_batch(b=2, seed=1)["audio"]

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for turn in range(3):
            if turn == 1 and own_rank == WORLD - 1:
                raise FileNotFoundError("a.wav is gone")
            yield audio["waveforms"], audio["lengths"]

    try:
        encode_shared(
            make_model().audio, batches(), 3 * WORLD, keep_tokens=False, gather_states=False
        )
    except InputError as error:
        return str(error)
    return "nothing"


def main(own_rank: int, folder: Path) -> None:
    from conftest import make_tiny_batch, make_tiny_model

    with process_group(own_rank, WORLD, folder):
        found = evaluate(make_tiny_model, make_tiny_batch)
        found["error"] = broken_off(own_rank, make_tiny_model, make_tiny_batch)
        torch.save(found, folder / f"{own_rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(__file__, WORLD, folder)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(WORLD)]


def test_every_process_finds_what_one_does(ranks, tiny_model, tiny_batch) -> None:
    alone = evaluate(tiny_model, tiny_batch)
    for name, expected in alone.items():
        for found in (rank[name] for rank in ranks):
            for key in ("embeddings", "candidates"):
                for value, other in zip(found[key], expected[key], strict=True):
                    assert torch.equal(value, other), (name, key)
            assert found["figures"] == expected["figures"], name
            assert found["encoded"] == CLIPS


def test_all_processes_end_where_one_cannot_read_its_batch(ranks, tiny_model, tiny_batch) -> None:
    assert [rank["error"] for rank in ranks] == ["a.wav is gone"] * WORLD
    assert broken_off(WORLD - 1, tiny_model, tiny_batch) == "a.wav is gone"


def test_clips_and_pairs_are_shared_out(ranks) -> None:
    for size, fusion in CASES:
        first, second = (rank[f"{size} {fusion}"] for rank in ranks)
        assert sorted(first["kept"] + second["kept"]) == list(range(CLIPS))
        assert first["kept"][:size] == list(range(size))
        assert first["asked"] + second["asked"] == first["pairs"]
        assert (second["asked"] == 0) == (size == CLIPS)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
