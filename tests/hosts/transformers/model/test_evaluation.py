"""The embeddings and the loss of an evaluation batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_tiny_batch, make_tiny_model
from torch import Tensor
from trainer_world import (
    HEAD,
    make_batch,
    make_clap,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    ClapTrainerModel,
    TrainerModel,
)
from atr_moco_plugin.hosts.transformers.model.evaluation import embed_captions, embed_clips

Form = Callable[[Any, dict[str, Tensor]], dict[str, Any]]
AUDIO: dict[str, Form] = {
    "waveforms": lambda encoder, audio: audio,
    "features": lambda encoder, audio: {"features": encoder.features(**audio)},
    "tokens": lambda encoder, audio: {"tokens": encoder(**audio)},
    "a mapping": lambda encoder, audio: {"tokens": encoder(**audio)._asdict()},
    "lower": lambda encoder, audio: {
        "lower": encoder.lower(features=encoder.features(**audio), layers=1)
    },
}


def test_loss_of_an_evaluation_leaves_out_what_is_no_pair() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=4).eval()
    batch = make_batch(4)
    expected = model(**{name: value[:3] for name, value in batch.items()})["loss"]
    batch["clip_id"][3] = -100
    assert model(**batch)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    batch["clip_id"][:] = -100
    assert model(**batch)["loss"] == 0


@pytest.mark.parametrize("clip_id", [[9, 1, 5, 3], [9, 1, 9, 3], [9, 9, 9, 9]])
@pytest.mark.parametrize("form", AUDIO)
def test_a_row_has_the_embedding_of_its_own_clip(form: str, clip_id: list[int]) -> None:
    """Tuples and mappings stayed in the order of the batch where tensors were sorted by id."""
    model = make_tiny_model()
    trained = TrainerModel(model, "moco_atc", queue_size=8).eval()
    batch: Any = make_tiny_batch()
    ids = torch.tensor(clip_id)
    rows = (ids[:, None] == ids).int().argmax(dim=1)  # equal audio in rows of one clip
    audio = {name: x[rows] for name, x in batch["audio"].items()}
    with torch.no_grad():
        expected, _ = model.audio(**audio)
        found = trained(
            audio_inputs=AUDIO[form](model.audio.encoder, audio), text_inputs=batch["text"],
            clip_id=ids, caption_id=torch.arange(4),
        )  # fmt: skip
    torch.testing.assert_close(found["audio_embeds"], expected, atol=1e-5, rtol=0)
    if len(set(clip_id)) < 4:
        changed = AUDIO[form](model.audio.encoder, batch["audio"])
        with pytest.raises(
            InputError, match="clip_id 9 of the evaluation set is in rows with diff"
        ):
            trained(
                audio_inputs=changed, text_inputs=batch["text"],
                clip_id=ids, caption_id=torch.arange(4),
            )  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_captions_of_a_clip_and_its_windows_are_taken_from_nests_too(nested: bool) -> None:
    def tower(x: Any) -> tuple[Tensor, None]:
        return (x["one"][0] if nested else x), None

    def given(x: Tensor) -> dict[str, Any]:
        return {"x": {"one": (x, "name")} if nested else x}

    x = torch.nn.functional.normalize(torch.randn(3, 2, 4), dim=2)
    ids = torch.tensor([[7, 8], [9, -100], [2, 3]])
    found = embed_captions(tower, given(x), ids)
    assert torch.equal(found, x * (ids != -100)[:, :, None])
    clips, windows = torch.tensor([9, 1, 5]), torch.tensor([2, 1, 1])
    found = embed_clips(tower, given(x), clips, windows, None)
    expected = torch.stack([x[0].sum(dim=0), x[1, 0], x[2, 0]])
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1))


def test_inputs_without_a_row_for_each_id_are_refused() -> None:
    def tower(**inputs: Any) -> Any:
        raise AssertionError

    x, ids = torch.ones(3, 2), torch.tensor([9, 1, 5])
    with pytest.raises(InputError, match=r"clip ids of the shape \[3\], but `x` .* shape \[2\]"):
        embed_clips(tower, {"x": (x, torch.zeros(2))}, ids, None, None)
    with pytest.raises(InputError, match=r"caption ids of the shape \[3, 1\], but `x`"):
        embed_captions(tower, {"x": x}, ids[:, None])


@pytest.mark.parametrize("clip_id", [[9, 1, 5], [9, 9, 5]])
def test_options_and_constant_tensors_are_for_all_rows(clip_id: list[int]) -> None:
    """An option of three numbers failed in a batch of three, and a bank in each."""
    bank, norm, scale = torch.randn(64, 4), (0.5, 0.5, 0.5), torch.tensor(2.0)

    def tower(x: Tensor, bank: Any, norm: Any, scale: Tensor, lengths: Any = None) -> Any:
        assert bank[0] is options["bank"][0] and norm is options["norm"] and scale.ndim == 0
        assert lengths is None or [int(row[0]) for row in x] == lengths
        return x, None

    options: dict[str, Any] = {"bank": (bank,), "norm": norm, "scale": scale}
    ids = torch.tensor(clip_id)
    x = ids[:, None] * torch.ones(3, 4)
    assert torch.equal(embed_clips(tower, {"x": x, **options}, ids, None, None), x)
    # Values for the rows stay with them.
    inputs = {"x": x, **options, "lengths": clip_id}
    assert torch.equal(embed_clips(tower, inputs, ids, None, None), x)
    captions = torch.tensor([[7], [8], [-100]])
    found = embed_captions(tower, {"x": x[:, None], **options}, captions)
    assert torch.equal(found, (x * (captions != -100))[:, None])


@pytest.mark.parametrize("windowed", [True, False])
def test_lists_that_may_have_a_value_a_row_are_refused_where_rows_are_chosen(
    windowed: bool,
) -> None:
    """They went to other rows than the tensors beside them."""

    def tower(x: Tensor, lang: Any) -> Any:
        return x, None

    x, ids = torch.ones(2, 2, 3), torch.tensor([7, 3])
    for lang in (["en", "de"], ("en", "de")):
        inputs = {"x": x, "lang": lang}

        def embed(inputs: dict[str, Any] = inputs) -> Tensor:
            if windowed:
                return embed_clips(tower, inputs, ids, torch.tensor([1, 1]), None)
            return embed_captions(tower, inputs, torch.tensor([[-100, -100], [5, 6]]))

        if isinstance(lang, tuple):
            assert len(embed()) == 2
        else:
            with pytest.raises(InputError, match="`lang` is a list of 2 values, as many as the"):
                embed()
