"""The model card of a bundle: what it is, where it comes from, and how to load it.

Markdown with YAML front matter, as the Hugging Face Hub shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template
from typing import Any

from atr_moco_plugin.evaluation.result_tables import retrieval_table
from atr_moco_plugin.retriever.bundle import BundleConfig
from atr_moco_plugin.retriever.kept_card import PLACE

_LOADING = """\
from atr_moco_plugin import AudioTextRetriever

retriever = AudioTextRetriever.from_pretrained("""
_NAME = re.compile(rf"""^({re.escape(_LOADING)})('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")""", re.M)

_CARD = Template("""\
---
library_name: atr-moco-plugin
pipeline_tag: feature-extraction
tags:
- audio-text-retrieval
- $architecture
license: unknown  # say which, such as mit or cc-by-nc-4.0
---

# $title

Finds sounds by sentences and sentences by sounds: both become vectors of one space. Made with the
Python package atr-moco-plugin.

```python
$loading$name)
sounds = retriever.embed_audio(["a.wav", "b.wav"])
sentences = retriever.embed_text(["a dog barks far away"])
print(sentences @ sounds.T)
```

## What it is

| | |
|---|---|
$facts

## Figures

$figures

## Licence

$place: of the weights. Data and pretrained encoders may bind you.

## Citation

$place.

```bibtex
@misc{...,
}
```
""")

_DISTANCE = {
    "diagonal": "learned distance D, weights of dimensions: the cosine is -D² over its largest",
    "full": "learned distance D, a whole matrix: the cosine is -D² over its largest",
}

_UNMEASURED = (
    "None: the run has no evaluation of this checkpoint. `export --figures retrieval.json` takes "
    "those of an evaluation."
)


def model_card(
    config: BundleConfig, *, title: str, figures: Mapping[str, Any] | None = None
) -> str:
    """The text of a bundle's ``README.md``.

    Args:
        config: of the bundle. Of its ``origin`` are shown ``criterion``, ``data``, ``seed``,
            ``run`` and ``checkpoint``, where they are there.
        title: its name.
        figures: by the name of each split what
            :func:`~atr_moco_plugin.evaluation.retrieval.system_figures` returned.
    """
    title = _line(title)
    return _CARD.substitute(
        place=PLACE,
        architecture="clap" if config.kind == "clap" else "two-towers",
        title=title.replace("<", "&lt;"),
        loading=_LOADING,
        name=repr(title),
        facts="\n".join(f"| {name} | {_cell(value)} |" for name, value in _facts(config).items()),
        figures="\n\n".join(_tables(figures or {})) or _UNMEASURED,
    )


def with_name(card: str, name: str) -> str:
    """A card that loads the model by another name, in the package's own lines; what a user has
    written stays as it is."""
    return _NAME.sub(lambda found: f"{found[1]}{name!r}", card, count=1)


def _facts(config: BundleConfig) -> dict[str, str]:
    origin, model = config.origin, config.model
    if config.kind == "clap":
        head = "fusion" if model.get("head") else "none"
        parts = f"ClapModel of transformers, head {head}"
    else:
        parts = ", ".join(f"{part} {model[part]['name']}" for part in ("audio", "text", "head"))
    facts = {
        "parts": parts,
        "packages": ", ".join(sorted(set(config.packages.values()))),
        "sample rate": f"{config.sample_rate:,} Hz",
        "window, hop": f"{config.window_seconds:g} s, {config.hop_seconds:g} s",
        "longest sentence": f"{config.max_tokens} tokens",
        "temperature": f"{config.temperature:.4g}",
        "score": "" if config.distance is None else _DISTANCE[config.distance],
        "re-ranking score": config.score or "none: no trained matching head",
        "criterion": _told(origin.get("criterion")),
        "training data": _told(origin.get("data")),
        "seed": _told(origin.get("seed")),
        "run": _told(origin.get("run")),
        "checkpoint": _told(origin.get("checkpoint")),
        "written with": _told(origin.get("versions")),
    }
    return {name: value for name, value in facts.items() if value}


def _tables(figures: Mapping[str, Any]) -> list[str]:
    tables = []
    for split, result in figures.items():
        table = retrieval_table(result, str(result.get("test_set", split)), ranges=True)
        caption = table.caption if "clips" in result else str(split)
        tables.append(f"{_line(caption)}\n\n{table.markdown()}")
    if tables:
        tables.append(
            "R@k and mAP@10 in percent. Rows with (dup) count every clip of an equal caption as "
            "right."
        )
    return tables


def _told(value: object) -> str:
    """A value of ``origin`` in words; empty where there is none."""
    if isinstance(value, Mapping):
        pairs = ((key, _told(x)) for key, x in value.items())
        return ", ".join(f"{key} {told}" for key, told in pairs if told)
    return "" if value is None else str(value)


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return _line(text).replace("|", "\\|").replace("<", "&lt;")


def _line(text: str) -> str:
    return " ".join(text.split())
