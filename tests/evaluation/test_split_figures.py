"""The figures of a split: what is of pairs is measured of pairs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from atr_moco_plugin.data import Clip, RetrievalSet
from atr_moco_plugin.data.retrieval_set import make_retrieval_set
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.split import Scores
from atr_moco_plugin.evaluation.split_figures import split_figures

LABELS = ("rain", "dog", "wind", "car")


def pair_figures(of_set: RetrievalSet, audio: list[int], text: list[int]) -> dict:
    """Of clips and captions in these four directions."""
    encoded = []
    for places in (audio, text):
        encoded.append(Encoded())
        encoded[-1].add(torch.eye(4)[places], None)
    split = SimpleNamespace(
        dataset=SimpleNamespace(name="set"), name="test", retrieval_set=of_set, unreadable=0
    )
    scores = Scores(*encoded, Cosines(*encoded), None)
    return split_figures(scores, split, [], 0.07)["rank"]["pairs"]["audio_text"]


def test_the_alignment_is_of_clips_and_their_captions() -> None:
    clips = [Clip(f"{i}.wav", (label,), None) for i, label in enumerate(LABELS)]
    figures = pair_figures(make_retrieval_set(clips, "clip", "set"), [0, 1, 2, 3], [0, 1, 2, 0])
    assert figures["alignment"] == pytest.approx(2 / 4)


def test_labels_with_as_many_texts_as_there_are_clips_have_no_alignment() -> None:
    """Row i of both sides was taken for a pair, and a perfect model was told 1 for 0."""
    places = [1, 0, 2, 3]
    clips = [Clip(f"{i}.wav", LABELS, None, LABELS[place]) for i, place in enumerate(places)]
    retrieval_set = make_retrieval_set(clips, "label", "set")
    assert retrieval_set.captions == list(LABELS)
    figures = pair_figures(retrieval_set, places, [0, 1, 2, 3])
    assert figures["alignment"] is None and figures["modality_gap"] == pytest.approx(0, abs=1e-6)


def test_captions_in_another_order_than_the_clips_have_no_alignment() -> None:
    clips = [Clip("a.wav", ("rain",), None), Clip("b.wav", ("dog",), None)]
    ids = torch.arange(2)
    assert pair_figures(RetrievalSet(clips, ["rain", "dog"], ids, ids), [0, 1], [0, 1]) == {
        "alignment": 0.0,
        "modality_gap": 0.0,
    }
    turned = RetrievalSet(clips, ["dog", "rain"], ids, torch.tensor([1, 0]))
    assert pair_figures(turned, [0, 1], [1, 0]) == {"alignment": None, "modality_gap": 0.0}
