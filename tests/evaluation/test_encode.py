from __future__ import annotations

import torch

from atr_moco_plugin.evaluation.captions import distinct_captions
from atr_moco_plugin.evaluation.encode import encode_captions, encode_shared, share
from atr_moco_plugin.evaluation.encoded import Encoded

CPU = torch.device("cpu")


def test_equal_captions_are_encoded_once_and_by_length() -> None:
    ids = torch.tensor([[2, 9, 8, 3, 0], [2, 7, 3, 0, 0], [2, 9, 8, 3, 5], [2, 7, 3, 0, 0]])
    mask = torch.arange(5) < torch.tensor([4, 3, 5, 3])[:, None]
    captions = distinct_captions(ids, mask, batch_size=2)
    assert captions.rows.tolist() == [1, 0, 2, 0]
    (short_ids, short_mask), (long_ids, long_mask) = captions.batches
    assert short_ids.tolist() == [[2, 7, 3, 0], [2, 9, 8, 3]]
    assert short_mask.tolist() == [[True] * 3 + [False], [True] * 4]
    assert long_ids.tolist() == [[2, 9, 8, 3, 5]] and long_mask.all()


def test_what_padding_holds_does_not_make_captions_differ() -> None:
    ids = torch.tensor([[2, 7, 3, 1], [2, 7, 3, 0]])
    mask = torch.tensor([[True, True, True, False]] * 2)
    assert distinct_captions(ids, mask, 8).rows.tolist() == [0, 0]


def test_encoded_keeps_the_valid_tokens_and_no_padding(tiny_model, tiny_batch) -> None:
    model, text = tiny_model(fusion="albef").eval(), tiny_batch(b=21, seed=2)["text"]
    captions = distinct_captions(text["input_ids"], text["mask"], 8)
    encoded = encode_captions(model, captions, CPU, keep_tokens=True)
    with torch.no_grad():
        embeddings, expected = model.text(**text)
    torch.testing.assert_close(encoded.embeddings, embeddings, atol=1e-5, rtol=1e-5)

    items = torch.tensor([20, 0, 20, 5])
    tokens = encoded.text_tokens(encoded.rows[items])
    longest = int(expected.mask[items].sum(dim=1).max())
    mask = expected.mask[items, :longest]
    assert torch.equal(tokens.mask, mask)
    assert torch.equal(tokens.input_ids, expected.input_ids[items, :longest])
    torch.testing.assert_close(
        tokens.states[mask], expected.states[items, :longest][mask], atol=1e-5, rtol=1e-5
    )
    assert not tokens.states[~mask].any() and (~mask).any()
    bytes_kept = sum(x.untyped_storage().nbytes() for x in encoded._states.values())
    assert bytes_kept == int(expected.mask.sum()) * expected.states.size(2) * 4
    assert not encoded.embeddings.requires_grad and not tokens.states.requires_grad


def test_a_head_that_starts_from_ids_gets_nothing_else(tiny_model, tiny_batch) -> None:
    model, text = tiny_model().eval(), tiny_batch(b=21, seed=2)["text"]
    encoded = encode_captions(
        model, distinct_captions(text["input_ids"], text["mask"], 8), CPU, keep_tokens=True
    )
    assert len(encoded.kept) == 21
    tokens = encoded.text_tokens(encoded.rows)
    longest = int(text["mask"].sum(dim=1).max())
    assert tokens.states is None and torch.equal(tokens.mask, text["mask"][:, :longest])
    assert torch.equal(tokens.input_ids, text["input_ids"][:, :longest])
    others = encode_shared(
        model.text, [(text["input_ids"], text["mask"])], 1,
        keep_tokens=True, keep_states=False, gather_states=True,
    )  # fmt: skip
    assert others.text_tokens(torch.tensor([3])).states is None


def test_tokens_belong_to_the_rows_they_came_with(tiny_model, tiny_batch) -> None:
    model, audio = tiny_model().eval(), tiny_batch(b=5)["audio"]
    with torch.no_grad():
        embeddings, tokens = model.audio(**audio)
    encoded = Encoded(sharded=True)
    encoded.add(embeddings[:2], None)
    encoded.add(embeddings[2:], type(tokens)(*(x[3:] for x in tokens)), first=1)
    assert encoded.kept.tolist() == [3, 4] and len(encoded.embeddings) == 5
    found = encoded.audio_tokens(torch.tensor([4]))
    assert torch.equal(found.states[0], tokens.states[4][tokens.mask[4]])


def test_states_keep_the_dtype_of_the_encoder(tiny_model, tiny_batch) -> None:
    with torch.no_grad():
        embeddings, tokens = tiny_model().audio(**tiny_batch()["audio"])
    encoded = Encoded()
    encoded.add(embeddings, tokens._replace(states=tokens.states.bfloat16()))
    assert encoded.audio_tokens(torch.arange(4)).states.dtype == torch.bfloat16
    assert encoded.embeddings.dtype == torch.float32


def test_one_process_takes_every_batch() -> None:
    assert share(3) == [0, 1, 2]
