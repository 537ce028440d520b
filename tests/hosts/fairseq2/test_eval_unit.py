from __future__ import annotations

import importlib.util

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.metrics import MetricBag

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data.dataset import Clip, RetrievalSet
from atr_moco_plugin.evaluation import relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.encode import distinct_captions
from atr_moco_plugin.hosts.fairseq2.training.batches import ClipBatch
from atr_moco_plugin.hosts.fairseq2.training.units import RetrievalEvalUnit

CLIPS, CAPTIONS = 5, 10
OWNER = torch.arange(CAPTIONS) % CLIPS
MATRIX = torch.arange(CLIPS)[:, None] == OWNER


def make_unit(criterion, retrieval_set, captions, rerank_k: int = 0) -> RetrievalEvalUnit:
    return RetrievalEvalUnit(
        criterion,
        retrieval_set,
        captions,
        3,  # batches of two clips
        rerank_k=rerank_k,
        batch_size=8,
        device=torch.device("cpu"),
    )


def evaluated(
    make_model, make_batch, retrieval_set: RetrievalSet, rerank_k: int
) -> RetrievalEvalUnit:
    audio, text = make_batch(b=CLIPS, seed=1)["audio"], make_batch(b=CAPTIONS, seed=2)["text"]
    criterion = MocoAtcAtm(make_model(), MocoAtcAtmConfig(queue_size=4)).eval()
    captions = distinct_captions(text["input_ids"], text["mask"], 4)
    unit = make_unit(criterion, retrieval_set, captions, rerank_k)
    bag = MetricBag(device=torch.device("cpu"))
    unit.prepare_metric_bag(bag)
    with torch.no_grad():
        for rows in torch.arange(CLIPS).split(2):
            unit.process_batch(ClipBatch(audio["waveforms"][rows], audio["lengths"][rows]), bag)
        unit.finalize(bag)
    return unit


def retrieval_set_of(owner: torch.Tensor | None) -> RetrievalSet:
    clips = [Clip(key=str(i), captions=("a",), source=None) for i in range(CLIPS)]
    ids = torch.arange(CAPTIONS) // 2
    return RetrievalSet(clips, ["a"] * CAPTIONS, ids, owner, None if owner is not None else MATRIX)


def test_similarity_and_relevance_are_those_of_the_figures(tiny_model, tiny_batch) -> None:
    retrieval_set = retrieval_set_of(OWNER)
    unit = evaluated(tiny_model, tiny_batch, retrieval_set, rerank_k=3)
    assert unit.retrieval_set is retrieval_set
    similarity = unit.similarity
    assert similarity.shape == (CLIPS, CAPTIONS) and similarity.dtype == torch.float32
    assert unit.result["dual"] == pytest.approx(
        retrieval_metrics(similarity, OWNER, caption_ids=retrieval_set.caption_ids)
    )
    values: dict[str, object] = {}
    unit.process_metric_values(values)
    assert values["r_sum"] == unit.result["dual"]["r_sum"]
    assert values["reranked_r_sum"] == unit.result["rerank"]["3"]["reranked"]["r_sum"]
    assert values["audio_rankme"] > 0


def test_labels_as_relevance(tiny_model, tiny_batch) -> None:
    unit = evaluated(tiny_model, tiny_batch, retrieval_set_of(None), rerank_k=0)
    assert unit.result["dual"] == pytest.approx(relevance_metrics(unit.similarity, MATRIX))
    assert "reranked" not in unit.result


def test_there_is_no_similarity_before_an_evaluation(tiny_model) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(queue_size=4))
    captions = distinct_captions(torch.ones(2, 3).long(), torch.ones(2, 3).bool(), 2)
    unit = make_unit(criterion, retrieval_set_of(OWNER), captions)
    with pytest.raises(RuntimeError, match="before the first evaluation"):
        unit.similarity
