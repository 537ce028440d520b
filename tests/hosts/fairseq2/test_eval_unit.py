from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.metrics import MetricBag

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.evaluation import relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
from atr_moco_plugin.evaluation.split import Split, prepare_split
from atr_moco_plugin.hosts.fairseq2.evaluation.unit import RetrievalEvalUnit

CLIPS, CAPTIONS = 5, 25


def to_tokens(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Three tokens a caption, the same for equal captions."""
    distinct = sorted(set(captions))
    ids = torch.tensor([[1, 5 + distinct.index(text), 2] for text in captions])
    return ids, torch.ones_like(ids).bool()


def make_unit(make_model, rerank_k: int = 0) -> RetrievalEvalUnit:
    dataset = open_toy(ToyConfig(num_train=2, num_valid=CLIPS, num_test=2))
    dataset.read_with(AudioReader(16_000))
    split: Split = prepare_split(
        dataset, "valid", to_tokens, batch_size=2, max_seconds=1.0, num_workers=0
    )
    criterion = MocoAtcAtm(make_model(), MocoAtcAtmConfig(atm_start=0, queue_size=4)).eval()
    return RetrievalEvalUnit(criterion, split, rerank_k, torch.device("cpu"))


def test_similarity_and_relevance_are_those_of_the_figures(tiny_model) -> None:
    unit = make_unit(tiny_model, rerank_k=3)
    bag = MetricBag(device=torch.device("cpu"))
    unit.prepare_metric_bag(bag)
    unit.finalize(bag)
    similarity, captions = unit.similarity, unit.split.retrieval_set
    assert similarity.shape == (CLIPS, CAPTIONS) and similarity.dtype == torch.float32
    expected = retrieval_metrics(
        similarity, captions.caption_to_audio, caption_ids=captions.caption_ids
    )
    assert unit.result["dual"] == pytest.approx(expected)
    values: dict[str, object] = {}
    unit.process_metric_values(values)
    assert values["r_sum"] == unit.result["dual"]["r_sum"]
    assert values["reranked_r_sum"] == unit.result["rerank"]["3"]["reranked"]["r_sum"]
    assert values["audio_rankme"] > 0


def test_labels_as_relevance(tiny_model) -> None:
    unit = make_unit(tiny_model)
    matrix = torch.rand(CLIPS, CAPTIONS, generator=torch.Generator().manual_seed(0)) < 0.4
    by_clip = unit.split.retrieval_set
    by_label = replace(by_clip, caption_to_audio=None, label_relevance=matrix)
    unit.split = replace(unit.split, retrieval_set=by_label)
    unit.evaluate()
    expected = relevance_metrics(unit.similarity, RelevanceMatrix(matrix))
    expected |= {f"{way}_precision1": expected[f"{way}_r1"] for way in ("a2t", "t2a")}
    assert unit.result["dual"] == pytest.approx(expected)
    assert "reranked" not in unit.result


def test_there_is_no_similarity_before_an_evaluation(tiny_model) -> None:
    with pytest.raises(RuntimeError, match="before the first evaluation"):
        make_unit(tiny_model).similarity  # noqa: B018
