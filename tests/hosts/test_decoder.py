"""``dataset.decoder`` is what reads a data set's headers, too."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.recipe.error import RecipeError
from fairseq2.utils.config import StandardConfigMerger

from atr_moco_plugin.hosts.fairseq2.config.sections import (
    RetrievalDatasetSection,
    open_with_decoder,
)


def opened(family: str, decoder: str, overrides: dict[str, object]) -> object:
    section = RetrievalDatasetSection(family=family, decoder=decoder, config_overrides=overrides)
    open_with_decoder(section, StandardConfigMerger())
    return section.config_overrides


@pytest.mark.parametrize("family", ["audiocaps", "clotho", "wavcaps", "manifest"])
def test_a_data_set_of_files_opens_with_the_decoder_of_the_recipe(family: str) -> None:
    assert opened(family, "torchcodec", {"root": "a"}) == {"root": "a", "decoder": "torchcodec"}
    both = {"decoder": "torchcodec"}
    assert opened(family, "torchcodec", both) == both
    assert opened(family, "soundfile", {"root": "a"}) == {"root": "a"}


@pytest.mark.parametrize("family", ["toy", "esc50", "webdataset", "mine"])
def test_one_that_reads_no_headers_has_no_such_option(family: str) -> None:
    assert opened(family, "torchcodec", {"root": "a"}) == {"root": "a"}


def test_two_decoders_for_one_data_set_are_refused() -> None:
    with pytest.raises(RecipeError, match="set `dataset.decoder` alone"):
        opened("manifest", "soundfile", {"decoder": "torchcodec"})
