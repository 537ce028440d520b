"""Text states go no further than the heads that read them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from retrieval import evaluate_retrieval
from torch import Tensor

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.evaluation.captions import distinct_captions
from atr_moco_plugin.evaluation.encode import encode_captions
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.heads import AtmHead, FusionHead
from atr_moco_plugin.tokens import TextTokens

HEADS = {
    "blip": ({"name": "atm", "config": {"fusion": "blip"}}, False),
    "albef": ({"name": "atm", "config": {"fusion": "albef"}}, True),
    "fusion": ({"name": "fusion"}, True),
}


class SaysNothing(torch.nn.Module):
    """A head of another package, from before heads could say what they need."""

    def __init__(self, head: AtmHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, text_encoder: Any, text: TextTokens, audio: Any) -> Tensor:
        assert text.states is not None
        return self.head(text_encoder, text, audio)


def states_seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The text states that the head is given from now on."""
    seen: list[Tensor | None] = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[1].states))
    return seen


def retrieval(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    model.eval()
    audio = Encoded()
    with torch.no_grad():
        audio.add(*model.audio(**batch["audio"]))
    captions = distinct_captions(batch["text"]["input_ids"], batch["text"]["mask"], 3)
    text = encode_captions(model, captions, torch.device("cpu"), keep_tokens=True)
    relevance = CaptionRelevance(torch.arange(len(batch["clip_ids"])), len(batch["clip_ids"]))
    return evaluate_retrieval(model, audio, text, relevance, rerank_k=(3,))


@pytest.mark.parametrize("name", HEADS)
def test_states_are_there_where_a_head_reads_them(
    tiny_model, tiny_batch, monkeypatch, name: str
) -> None:
    head, reads = HEADS[name]
    model = tiny_model(head=head)
    assert model.needs_text_states is reads
    seen = states_seen(model, monkeypatch)
    MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=4)).train()(**tiny_batch())
    retrieval(model, tiny_batch())
    assert len(seen) > 2 and all((x is not None) is reads for x in seen)


def test_a_head_that_says_nothing_gets_them(tiny_model, tiny_batch) -> None:
    model = tiny_model()
    model.head = SaysNothing(model.head)
    assert model.needs_text_states
    MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=4)).train()(**tiny_batch())
    retrieval(model, tiny_batch())


def test_results_are_equal_without_them(tiny_model, tiny_batch, monkeypatch) -> None:
    found = []
    for needs in (False, True):
        monkeypatch.setattr(AtmHead, "needs_text_states", needs)
        model = tiny_model()
        criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=4)).train()
        losses = criterion(**tiny_batch())
        losses["loss"].backward()
        gradients = [p.grad for p in criterion.parameters() if p.requires_grad]
        found.append((losses, gradients, retrieval(model, tiny_batch(b=7))))
    (losses, gradients, figures), (other_losses, other_gradients, other_figures) = found
    assert all(torch.equal(losses[name], other_losses[name]) for name in losses)
    assert all(torch.equal(x, y) for x, y in zip(gradients, other_gradients, strict=True))
    assert figures == other_figures


def test_the_fusion_head_reads_them() -> None:
    assert FusionHead.needs_text_states
