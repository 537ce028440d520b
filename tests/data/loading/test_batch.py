from __future__ import annotations

import numpy as np
import pytest
import torch

from atr_moco_plugin.data.loading.batch import (
    Example,
    PairBatch,
    collate,
    pad_waveforms,
)


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(text.split()) for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.int32)
    for row, text in enumerate(texts):
        words = [len(word) for word in text.split()]
        ids[row, : len(words)] = torch.tensor(words)
    return ids, ids > 0


def example(samples: int, caption: str, clip: int) -> Example:
    return Example(np.full(samples, 0.25, np.float32), caption, clip, 2**63 - 1)


def test_collate_pads_with_zeros_and_keeps_lengths() -> None:
    batch = collate([example(3, "a dog", 7), example(5, "a big bell", 8)], tokenize)
    assert len(batch) == 2
    expected = torch.tensor([[0.25] * 3 + [0.0] * 2, [0.25] * 5])
    torch.testing.assert_close(batch.waveforms, expected, rtol=0, atol=0)
    assert batch.lengths.tolist() == [3, 5]
    assert batch.input_ids.tolist() == [[1, 3, 0], [1, 3, 4]]
    assert batch.text_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.clip_ids.tolist() == [7, 8]
    assert batch.caption_ids.tolist() == [2**63 - 1] * 2


def test_collate_gives_the_documented_dtypes() -> None:
    batch = collate([example(3, "a dog", 7)], tokenize)
    assert batch.waveforms.dtype == torch.float32
    assert batch.text_mask.dtype == torch.bool
    for name in ("lengths", "input_ids", "clip_ids", "caption_ids"):
        assert getattr(batch, name).dtype == torch.int64


def test_padding_is_zero_whatever_memory_held_before() -> None:
    full = np.full(50_000, np.float32(9.0))
    padded, lengths = pad_waveforms([full, full[:1]])
    assert lengths.tolist() == [50_000, 1]
    assert padded[1, 1:].abs().max() == 0


def test_the_longest_clip_gives_the_width() -> None:
    batch = collate([example(3, "a dog", 7), example(5, "a big bell", 8)], tokenize)
    assert batch.waveforms.untyped_storage().nbytes() == 4 * 2 * 5
    for name in PairBatch.__dataclass_fields__:
        assert getattr(batch, name).is_contiguous(), name


def test_to_moves_every_tensor_in_place_but_the_lengths() -> None:
    batch = collate([example(3, "a dog", 7)], tokenize)
    assert batch.to("meta") is None
    devices = {name: getattr(batch, name).device.type for name in PairBatch.__dataclass_fields__}
    assert devices.pop("lengths") == "cpu" and set(devices.values()) == {"meta"}
    assert batch.lengths.tolist() == [3]


def test_an_empty_batch_raises() -> None:
    with pytest.raises(ValueError, match="at least one waveform"):
        collate([], tokenize)
    with pytest.raises(ValueError, match="at least one waveform"):
        pad_waveforms([])


def test_a_tokenizer_of_wrong_shape_raises() -> None:
    def one_row(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)

    with pytest.raises(ValueError, match=r"one shape \[2, L\], not \[1, 4\] and \[1, 4\]"):
        collate([example(3, "a", 1), example(3, "b", 2)], one_row)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA driver")
def test_pin_memory() -> None:
    batch = collate([example(3, "a dog", 7)], tokenize).pin_memory()
    assert batch.waveforms.is_pinned() and batch.caption_ids.is_pinned()


def test_waveforms_of_any_layout_are_taken() -> None:
    ramp = np.arange(6, dtype=np.float32)
    fixed = ramp.copy()
    fixed.flags.writeable = False
    padded, lengths = pad_waveforms([ramp[::-1], ramp[::2], fixed, ramp.astype(np.float64)])
    assert padded.dtype == torch.float32 and lengths.tolist() == [6, 3, 6, 6]
    assert padded[0].tolist() == [5, 4, 3, 2, 1, 0] and padded[1].tolist() == [0, 2, 4, 0, 0, 0]
    assert padded[2].tolist() == padded[3].tolist() == ramp.tolist()
