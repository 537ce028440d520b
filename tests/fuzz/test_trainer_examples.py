"""Examples of any form for the collator of the transformers host."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from trainer_world import RATE, make_extractor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapCollator
from atr_moco_plugin.text.tokenizer import train_wordpiece

FUZZ = settings.get_profile("fuzz")


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((RATE, 2)), 3 * RATE, format="WAV")
    return file.getvalue()


WAV = wav()

arrays = npst.arrays(
    st.one_of(npst.scalar_dtypes(), st.just(np.dtype(np.float32))),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40),
)
good = st.one_of(
    npst.arrays(np.float32, st.integers(1, 5 * RATE), elements=st.just(0.25)),
    npst.arrays(np.int16, st.tuples(st.integers(1, 3), st.integers(4, RATE)), elements=st.just(9)),
)
tensors = npst.arrays(np.float64, npst.array_shapes(max_dims=3)).map(torch.from_numpy)
lists = st.recursive(
    st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=2)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
rates = st.sampled_from([RATE, 3 * RATE, 44_100, 0, -1, 1, 8e3, None, "8000", math.nan, 2**70])
content = st.one_of(
    st.just(WAV), st.integers(0, len(WAV)).map(lambda n: WAV[:n]), st.binary(max_size=60)
)
mappings = st.one_of(
    st.fixed_dictionaries({"array": st.one_of(good, arrays, lists), "sampling_rate": rates}),
    st.fixed_dictionaries({"bytes": st.one_of(st.none(), content), "path": st.none()}),
    st.dictionaries(st.sampled_from(["array", "path", "bytes", "x"]), st.none(), max_size=2),
)
audio = st.one_of(good, good, arrays, tensors, lists, mappings, content, st.just("nowhere.wav"))
texts = st.one_of(st.just("a dog"), st.text(max_size=5), st.none(), st.integers(), st.binary())
ids = st.one_of(st.integers(0, 9), st.integers(), st.floats(), st.booleans(), st.text(max_size=3))


@st.composite
def examples(draw: st.DrawFn) -> dict[str, Any]:
    """Often a right one in all but one place."""
    example = {"audio": draw(good), "caption": "a dog", "clip_id": 1, "caption_id": 2}
    odd = {
        "audio": audio,
        "caption": st.one_of(texts, st.lists(texts, max_size=3)),
        "caption_id": st.one_of(ids, st.lists(ids, max_size=3)),
        "clip_id": ids,
        "sampling_rate": rates,
        "problem": st.sampled_from([None, "", "it is gone"]),
    }
    for name in draw(st.sets(st.sampled_from(sorted(odd)), max_size=2)):
        example[name] = draw(odd[name])
    return example


@pytest.mark.parametrize("training", [True, False])
@FUZZ
@given(st.lists(examples(), min_size=1, max_size=3))
def test_a_batch(attempt: Any, training: bool, batch: list[dict[str, Any]]) -> None:
    extractor = make_extractor(1)
    collator = ClapCollator(train_wordpiece(["a dog barks"]), extractor, eval_windows=2)
    collate = collator.for_training() if training else collator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ("clip", "caption", "audio", "sampling rate")
        made = attempt(lambda: collate(batch), (InputError,), *names)
    if made is not None:
        rows = len(made["clip_id"])
        assert 1 <= rows <= len(batch) and made["input_features"].isfinite().all()
        for name in ("input_features", "is_longer", "input_ids", "attention_mask", "caption_id"):
            assert len(made[name]) == rows, name
        assert (made["clip_id"] >= 0).any()
