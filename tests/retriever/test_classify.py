"""Labels without training: phrases, templates, and how several of a label count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_bundle import make_bundle, noise

from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever

WAVES = [(noise(9_000 + 1_000 * seed, seed), 16_000) for seed in range(3)]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> AudioTextRetriever:
    return AudioTextRetriever.from_pretrained(
        make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu"
    )


def test_scores_are_probabilities_of_cosines(retriever: AudioTextRetriever) -> None:
    found = retriever.classify(WAVES, ["dog", "rain", "siren"])
    assert found.labels == ["dog", "rain", "siren"]
    cosines = retriever.embed_audio(WAVES) @ retriever.embed_text(found.labels).T
    torch.testing.assert_close(found.cosines, cosines, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.scores, (cosines / 0.07).softmax(dim=1), atol=1e-4, rtol=0)
    assert found.scores.shape == (3, 3)


def test_phrases_and_templates(retriever: AudioTextRetriever) -> None:
    labels = {"animal": ["dog", "a dog barks"], "weather": ["rain"]}
    templates = ["{}", "a {} far"]
    sentences = ["dog", "a dog barks", "a dog far", "a a dog barks far", "rain", "a rain far"]
    audio, text = retriever.embed_audio(WAVES), retriever.embed_text(sentences)
    best = retriever.classify(WAVES, labels, templates)
    cosines = audio @ text.T
    expected = torch.stack([cosines[:, :4].amax(dim=1), cosines[:, 4:].amax(dim=1)], dim=1)
    torch.testing.assert_close(best.cosines, expected, atol=1e-5, rtol=0)
    mean = retriever.classify(WAVES, labels, templates, reduce="mean")
    middle = torch.stack([text[:4].mean(dim=0), text[4:].mean(dim=0)])
    expected = audio @ torch.nn.functional.normalize(middle, dim=1).T
    torch.testing.assert_close(mean.cosines, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(mean.cosines, best.cosines, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dog",), "are lists of strings, not one string"),
        ((["dog"], "{}"), "are lists of strings, not one string"),
        (([],), "there is no label"),
        (({},), "there is no label"),
        ((["dog", "dog"],), "the label 'dog' is there twice"),
        ((["dog", "a  Dog", "A dog"],), "the labels 'a  Dog' and 'A dog' are one text"),
        (({"dog": ["a bark"], "puppy": ["A bark"]},), "'dog' and 'puppy' .* the same phrases"),
        ((["dog"], []), "there is no template"),
        ((["dog"], ["a sound"]), r"the template 'a sound' must have \{\} once"),
        ((["dog"], ["{} {}"]), r"must have \{\} once"),
        (({"dog": "barks"},), "the label 'dog' must have a list of at least one phrase"),
        (({"dog": []},), "the label 'dog' must have a list of at least one phrase"),
        (([""],), "has no word"),
        (([1],), "a phrase of a label is 1, expected a string"),
    ],
)
def test_labels_that_cannot_be_used(
    retriever: AudioTextRetriever, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        retriever.classify(WAVES[0], *arguments)  # type: ignore[arg-type]


def test_one_way_to_count_phrases(retriever: AudioTextRetriever, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`reduce` is 'sum', expected one of max, mean"):
        retriever.classify(WAVES[0], ["dog"], reduce="sum")  # type: ignore[arg-type]


REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "esc50-16k"


@pytest.mark.skipif(not REAL.is_dir(), reason="ESC-50 is not beside this checkout")
def test_esc50_is_classified_as_its_recipe_evaluates(tmp_path: Path) -> None:
    """The share of clips whose label is right is the audio-to-text R@1 of the recipe, which asks
    for any phrase of the class at rank 1."""
    dataset = open_esc50(Esc50Config(root=REAL))
    whole = dataset.retrieval_set("test")
    words = [word for caption in whole.captions for word in caption.split()] * 2
    retriever = AudioTextRetriever.from_pretrained(
        make_bundle(tmp_path / "tiny", seconds=5.0, sentences=words), device="cpu"
    )
    some = range(0, len(whole.clips), 4)
    clips = [whole.clips[i] for i in some]
    labels: dict[str, list[str]] = {}
    for clip in whole.clips:
        labels[str(clip.label)] = list(dict.fromkeys(clip.captions))
    found = retriever.classify([clip.source for clip in clips], labels)
    guesses = [found.labels[i] for i in found.scores.argmax(dim=1).tolist()]
    right = sum(guess == clip.label for guess, clip in zip(guesses, clips, strict=True))
    audio = retriever.embed_audio([clip.source for clip in clips])
    cosines = audio @ retriever.embed_text(whole.captions).T
    relevance = whole.relevance[list(some)]
    hits = relevance[torch.arange(len(clips)), cosines.argmax(dim=1)].float().mean()
    assert right / len(clips) == pytest.approx(float(hits))
    assert len(labels) > 40 and right
