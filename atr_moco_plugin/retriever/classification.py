"""Labels of recordings from the cosines with sentences about each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.data.tables.file_names import composed
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_words
from atr_moco_plugin.retriever.loaded_model import LoadedModel
from atr_moco_plugin.tensors.float32 import cosines

Reduce = Literal["max", "mean"]


class Classification(NamedTuple):
    """What N recordings are, of L labels.

    Attributes:
        labels: the L labels.
        scores: ``[N, L]`` float32, probabilities: the softmax of cosines over the temperature.
        cosines: ``[N, L]`` float32.
    """

    labels: list[str]
    scores: Tensor
    cosines: Tensor


def label_phrases(
    labels: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[str]
) -> dict[str, list[str]]:
    """The sentences of each label.

    Args:
        labels: names, or names to phrases about each.
        templates: sentences with ``{}`` where a name or phrase goes.

    Raises:
        InputError: for labels that are none, empty, there twice or of the same phrases, and a
            template without ``{}``.
    """
    if isinstance(labels, str) or isinstance(templates, str):
        raise InputError("labels and templates are lists of strings, not one string")
    names, templates = list(labels), list(templates)
    for template in templates:
        if template.count("{}") != 1:
            raise InputError(f"the template {template!r} must have {{}} once, where the label goes")
    if not templates:
        raise InputError("there is no template: give at least '{}'")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the label {twice[0]!r} is there twice: leave one out")
    if not names:
        raise InputError("there is no label: give at least one")
    phrases = labels if isinstance(labels, Mapping) else {name: [name] for name in names}
    sentences = {}
    label_of: dict[frozenset[str], str] = {}
    for name, own in phrases.items():
        if isinstance(own, str) or not own:
            raise InputError(f"the label {name!r} must have a list of at least one phrase")
        if strange := [x for x in own if not isinstance(x, str)]:
            raise InputError(f"a phrase of a label is {strange[0]!r}, expected a string")
        if wordless := [x for x in own if not has_words(x)]:
            raise InputError(f"the label or phrase {wordless[0]!r} has no word: correct it")
        if (other := label_of.setdefault(frozenset(map(_folded, own)), name)) is not name:
            raise InputError(
                f"the labels {other!r} and {name!r} are one text, or have the same phrases, so "
                "that every sound would fit both: leave one out"
            )
        sentences[name] = [t.replace("{}", phrase) for t in templates for phrase in own]
    return sentences


def _folded(text: str) -> str:
    """A text as a reader compares it: ``Dog`` is ``dog``."""
    return " ".join(composed(text).casefold().split())


def classified(
    model: LoadedModel,
    audio: Tensor,
    sentences: Mapping[str, Sequence[str]],
    text: Tensor,
    reduce: Reduce,
) -> Classification:
    """Scores of N recordings for each label.

    Args:
        model: whose embeddings they are.
        audio: ``[N, d]`` unit-norm.
        sentences: of each label.
        text: ``[S, d]`` unit-norm, of all sentences in order.
        reduce: ``max`` takes the best sentence of a label, ``mean`` their mean embedding.
    """
    groups = text.split([len(x) for x in sentences.values()])
    if reduce == "mean":
        per_label = cosines(
            audio, model.mean_embeddings(torch.stack([x.sum(dim=0) for x in groups]))
        )
    elif reduce == "max":
        columns = [cosines(audio, x).amax(dim=1) for x in groups]
        per_label = torch.stack(columns, dim=1)
    else:
        raise InputError(f"`reduce` is {reduce!r}, expected one of max, mean")
    return Classification(
        list(sentences), (per_label / model.temperature).softmax(dim=1), per_label
    )
