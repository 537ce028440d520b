"""Folders of evaluations as the recipe writes them, of a tiny test set, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor

from atr_moco_plugin.data import Clip, RetrievalSet
from atr_moco_plugin.data.retrieval_set import make_retrieval_set
from atr_moco_plugin.evaluation.queries import (
    QUERIES_FILE,
    QueryFigures,
    split_queries,
    write_queries,
)
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, relevances
from atr_moco_plugin.evaluation.trec import RunFiles, caption_ids, trec_id, write_qrels


def clips(number: int = 12, captions: int = 3, name: str = "clip") -> list[Clip]:
    """Clips of four classes; the captions name class and clip."""
    return [
        Clip(
            f"{name} {n}",
            tuple(f"sound {n} said {k}" for k in range(captions)),
            f"{n}.wav",
            label=f"class {n % 4}",
        )
        for n in range(number)
    ]


def scores_of(retrieval_set: RetrievalSet, seed: int, *, skill: float = 1.5) -> Tensor:
    """``[A, C]`` random scores, higher where relevant."""
    relevant = retrieval_set.relevance
    noise = torch.randn(relevant.shape, generator=torch.Generator().manual_seed(seed))
    return noise + skill * relevant


def evaluation(
    folder: Path,
    of: Sequence[Clip],
    seed: int,
    *,
    mode: str = "clip",
    skill: float = 1.5,
    split: str = "test",
    config: dict[str, object] | None = None,
    trec: bool = False,
) -> Path:
    """Write what an evaluation leaves: figures of queries, configuration, rankings."""
    retrieval_set = make_retrieval_set(of, mode, "tiny")  # type: ignore[arg-type]
    systems: dict[str, dict[str, QueryFigures]] = {way: {} for way in DIRECTIONS}
    for number, system in enumerate(("dual", "reranked_k4")):
        scores = scores_of(retrieval_set, seed + 1000 * number, skill=skill + number)
        for suffix, relevance in relevances(retrieval_set, torch.device("cpu")).items():
            for way in DIRECTIONS:
                rows = scores if way == "a2t" else scores.T
                relevant = relevance.block(way, 0, len(rows))
                systems[way][f"{system}{suffix}"] = _figures(rows, relevant)
        if trec:
            _write_trec(folder / "trec", retrieval_set, system, scores)
    queries = split_queries(f"tiny {split}", retrieval_set, systems)  # type: ignore[arg-type]
    write_queries(folder / QUERIES_FILE, {split: queries})
    tree = {"common": {"seed": seed}, "dataset": {"family": "none"}, **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (folder / "retrieval.json").write_text(json.dumps({"seed": seed, "dataset": "tiny"}))
    return folder


def _figures(scores: Tensor, relevant: Tensor) -> QueryFigures:
    ranks, precisions = [], []
    for row, hits in zip(scores.tolist(), relevant.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i], hits[i]))
        places = [place for place, item in enumerate(order, 1) if hits[item]]
        ranks.append(places[0])
        found = [n / place for n, place in enumerate(places, 1) if place <= 10]
        precisions.append(sum(found) / min(10, len(places)))
    return QueryFigures(
        torch.tensor(ranks), torch.tensor(precisions, dtype=torch.float64), scores.argmax(dim=1)
    )


def _write_trec(folder: Path, retrieval_set: RetrievalSet, system: str, scores: Tensor) -> None:
    keys = [clip.key for clip in retrieval_set.clips]
    texts = caption_ids(keys, retrieval_set.caption_to_audio, len(retrieval_set.captions))
    ids = [trec_id(key) for key in keys]
    relevance = relevances(retrieval_set, torch.device("cpu"))
    with RunFiles(folder, ids, texts, 100) as files:
        files("a2t", system, 0, scores, retrieval_set.relevance)
        files("t2a", system, 0, scores.T, retrieval_set.relevance.T)
    for suffix, of_suffix in relevance.items():
        write_qrels(folder, of_suffix, ids, texts, suffix)
