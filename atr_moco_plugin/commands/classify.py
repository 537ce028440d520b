"""``classify``: which of some labels fits each sound, without training for them."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from atr_moco_plugin.commands.embed import read_lines
from atr_moco_plugin.commands.options import (
    add_model,
    add_sounds,
    list_sounds,
    load_retriever,
    none_can_be_read,
    positive,
    report_broken,
)
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import say

if TYPE_CHECKING:
    from atr_moco_plugin.retriever import AudioTextRetriever
    from atr_moco_plugin.retriever.classification import Reduce
    from atr_moco_plugin.search.sources import Listing

SUMMARY = "say which of some labels fits each sound"
EXAMPLE = 'atr-moco classify ~/sounds --model BUNDLE --labels "siren,engine,rain"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_sounds(parser)
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", metavar="A,B,...", help="the labels, with commas between them")
    labels.add_argument(
        "--labels-file",
        metavar="FILE",
        help="a label a line (- reads standard input), or a .json with a list of labels or label: "
        "[phrases]",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="a sentence with {} where the label goes; may be repeated (default: {} alone)",
    )
    parser.add_argument(
        "--reduce",
        choices=("max", "mean"),
        default="max",
        help="of several sentences a label: the best one, or their mean embedding (default: max)",
    )
    parser.add_argument(
        "--top", type=positive, metavar="N", help="labels of a sound in the table (default: 1)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--csv", action="store_true", help="print CSV, with the score of each label in a column"
    )
    form.add_argument("--json", action="store_true", help="print JSON, with the score of each")
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Classify, and print a row a sound."""
    from atr_moco_plugin.retriever.classification import label_phrases

    if options.top is not None and (options.csv or options.json):
        raise InputError(
            "--top is for the table, but --csv and --json have the score of every label: leave one "
            "of them out."
        )
    labels = _labels(options)
    sentences = label_phrases(labels, options.template or ["{}"])  # before the model is loaded
    if len(sentences) == 1:
        raise InputError("A single label fits every sound by 100%: give one more at least.")
    listing = list_sounds(options)
    retriever = load_retriever(options)
    rows, broken = _classified(listing, retriever, sentences, options.reduce)
    if not rows:
        raise InputError(none_can_be_read(listing, broken))
    if options.json:
        found = [{"path": name, "label": _best(scores), "scores": scores} for name, scores in rows]
        say(json.dumps({"sounds": found, "broken": broken}, indent=2))
    elif options.csv:
        say(_csv(rows))
    else:
        for line in _table(rows, options.top or 1):
            say(line)
    report_broken(broken)
    return 0


def _labels(options: argparse.Namespace) -> list[str] | dict[str, list[str]]:
    if options.labels is not None:
        names = [name.strip() for name in options.labels.split(",")]
        return [name for name in names if name]
    from atr_moco_plugin.data.tables.encoding import KeyTwiceError, parse_json

    path = expanded(options.labels_file, "--labels-file")
    if path.suffix.lower() != ".json":
        instead = "a text file with one label a line, or .json with a list"
        lines = read_lines(options.labels_file, "labels", instead)
        return [line.strip() for line in lines if line.strip()]
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: Any = parse_json(text)
    except KeyTwiceError as ex:
        raise InputError(f"{path}: the label {ex.key!r} is there twice: leave one out.") from ex
    except FileNotFoundError as ex:
        raise MissingFileError(f"{path}: there is no such file of labels.") from ex
    except (OSError, ValueError) as ex:
        raise InputError(f"{path} cannot be read as UTF-8 text or JSON: {ex}.") from ex
    if isinstance(content, list) and all(isinstance(x, str) for x in content):
        return content
    if isinstance(content, dict) and all(
        isinstance(own, list) and all(isinstance(x, str) for x in own) for own in content.values()
    ):
        return content
    raise InputError(f"{path} must be a list of labels, or an object of label: [phrases].")


def _classified(
    listing: Listing,
    retriever: AudioTextRetriever,
    sentences: dict[str, list[str]],
    reduce: Reduce,
) -> tuple[list[tuple[str, dict[str, float]]], list[tuple[str, str]]]:
    """Name and scores of each sound, and name and reason of the broken ones."""
    import torch

    from atr_moco_plugin.retriever.classification import classified
    from atr_moco_plugin.search.bulk import embed_each

    text = retriever.embed_text([x for own in sentences.values() for x in own])
    rows: list[tuple[str, dict[str, float]]] = []
    found = list(listing.found)
    broken = list(listing.notes.problems)
    for group, embeddings, problems in embed_each(found, retriever):
        broken += problems
        audio = torch.from_numpy(embeddings)
        result = classified(retriever, audio, sentences, text, reduce)
        for sound, scores in zip(group, result.scores.tolist(), strict=True):
            rows.append((sound.name, dict(zip(result.labels, scores, strict=True))))
    return rows, broken


def _best(scores: dict[str, float]) -> str:
    return max(scores, key=lambda label: scores[label])


def _table(rows: list[tuple[str, dict[str, float]]], top: int) -> Iterator[str]:
    from atr_moco_plugin.io.stdout import printable

    width = max(len(label) for label in rows[0][1])
    for name, scores in rows:
        best = sorted(scores, key=lambda label: -scores[label])[:top]
        cells = [f"{label.ljust(width)} {scores[label]:6.1%}" for label in best]
        yield printable("  ".join((*cells, name)))


def _csv(rows: list[tuple[str, dict[str, float]]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "label", *rows[0][1]])
    for name, scores in rows:
        path = name.encode("utf-8", "backslashreplace").decode()
        writer.writerow([path, _best(scores), *(f"{x:.6f}" for x in scores.values())])
    return stream.getvalue().rstrip("\n")
