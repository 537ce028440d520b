"""A retriever in another process."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import make_bundle, make_public_clap

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever


@pytest.mark.parametrize("make", [make_bundle, make_public_clap])
def test_a_pickle_or_a_copy_is_the_same_model(make: Callable[[Path], Path], tmp_path: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(
        make(tmp_path / "model"), device="cpu", dtype="bfloat16", batch_size=3
    )
    for other in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        assert (other.fingerprint, other.batch_size) == (retriever.fingerprint, 3)
        assert other.embed_text("a dog barks").equal(retriever.embed_text("a dog barks"))


def test_another_model_in_its_place_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "model")
    pickled = pickle.dumps(AudioTextRetriever.from_pretrained(bundle, device="cpu"))
    shutil.rmtree(bundle)
    make_bundle(bundle, seed=1)
    with pytest.raises(InputError, match="is another model than the one that was pickled"):
        pickle.loads(pickled)
