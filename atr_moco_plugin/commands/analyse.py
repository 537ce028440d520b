"""``analyse``: the geometry of embeddings, of one kind or of two that belong together."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from atr_moco_plugin.commands.embed import read_sentences
from atr_moco_plugin.commands.options import (
    add_model,
    list_sounds,
    load_retriever,
    none_can_be_read,
)
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.io.atomic import check_output
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import say

if TYPE_CHECKING:
    from torch import Tensor

    from atr_moco_plugin.analysis.reading import GivenRows, Kind
    from atr_moco_plugin.retriever import AudioTextRetriever

SUMMARY = "measure the geometry of embeddings: spectra, shared axes, dimension, hubs"
EXAMPLE = "atr-moco analyse audio.npy text.npy --output analysis.html"

_KINDS: tuple[Kind, Kind] = ("audio", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "audio",
        metavar="AUDIO",
        help=(
            "embeddings: a .npy, .safetensors or .parquet, FILE::NAME for one tensor or column of "
            "several; with --model also a folder of sounds, or sentences (.txt)"
        ),
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="?",
        help=(
            "the embeddings of what belongs to it; with --model also sentences, one a line, or a "
            "captions file. Not needed for one kind alone, or where AUDIO has both"
        ),
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        help=(
            "which rows belong together: a captions file, a table with audio_row and text_row, or "
            "a .npy of row numbers (default: row i belongs to row i)"
        ),
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="what to call the rows on the page, such as image caption",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("analysis.html"),
        metavar="PAGE",
        help="the page (default: analysis.html in this folder)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of what is drawn at random (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print the measures as JSON")
    add_model(parser, required=False, more="; embeds AUDIO and TEXT where they are no embeddings")


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{number} is not from 0 to 2^63 - 1")
    return number


def run(options: argparse.Namespace) -> int:
    """Read or embed, measure, print the tables and write the page."""
    from atr_moco_plugin.analysis import analyse
    from atr_moco_plugin.analysis.page import write_page
    from atr_moco_plugin.analysis.tables import terminal_report
    from atr_moco_plugin.report.packages import check_page_packages

    output = expanded(options.output, "--output")
    check_page_packages()
    check_output(output, "--output")
    with warnings.catch_warnings(record=True) as caught:  # of a table's encoding, say
        warnings.simplefilter("always", UserWarning)
        sides, pairs, notes = _sides(options)
    said = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    names = _names(options.names, sides)
    result = analyse(
        sides[0].rows,
        sides[1].rows if len(sides) > 1 else None,
        pairs,
        names=names,
        seed=options.seed,
    )
    result["notes"] = [*said, *notes, *result["notes"]]
    write_page(output, result, f"Embeddings: {' and '.join(names[: len(sides)])}")
    if options.json:
        say(json.dumps({**result, "output": str(output)}, indent=2))
    else:
        say(f"{terminal_report(result)}\n\nPage: {output}")
    return 0


def _sides(options: argparse.Namespace) -> tuple[list[GivenRows], Tensor | None, list[str]]:
    """One or two matrices, which of their rows belong together, and what a reader must know."""
    from atr_moco_plugin.analysis.pairs_file import read_pairs
    from atr_moco_plugin.analysis.reading import is_embeddings_file, kinds_in
    from atr_moco_plugin.analysis.row_names import rows_of_one_id

    given = [options.audio, *([] if options.text is None else [options.text])]
    if len(given) == 1 and is_embeddings_file(given[0]) and len(kinds_in(given[0])) == 2:
        given *= 2
    if options.pairs is not None and len(given) == 1:
        raise InputError("--pairs needs embeddings of two kinds: give TEXT too.")
    strange = [x for x in given if not is_embeddings_file(x)]
    if strange and options.model is None:
        raise InputError(
            f"{strange[0]} is no .npy, .safetensors or .parquet of embeddings; give one, or "
            "--model BUNDLE to embed sounds and sentences."
        )
    if not strange:
        for name in ("model", "device", "dtype", "batch_size"):
            if (value := getattr(options, name)) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} {value} does nothing here: "
                    f"{' and '.join(dict.fromkeys(given))} are embeddings already; leave it out."
                )
    retriever = load_retriever(options) if strange else None
    kinds = _KINDS[: len(given)]
    sides = [_side(x, kind, retriever, options) for x, kind in zip(given, kinds, strict=True)]
    if len(sides) == 1:
        return sides, None, []
    table = options.pairs
    if table is None and _names_audio(given[1]):
        table = given[1]
    if table is not None:
        found = read_pairs(expanded(table, "--pairs"), sides[0].names, sides[1].names)
        return sides, found.rows, found.notes
    partners, of_one_file = sides[1].partners, _file(given[0]) == _file(given[1])
    if partners is not None and of_one_file:
        import torch

        return sides, torch.stack([partners, torch.arange(len(partners))], dim=1), []
    by_id: Tensor | None = None
    notes: list[str] = []
    # Two columns of one table have a pair in each of its rows, whatever the ids of these are.
    if not (of_one_file and sides[0].column and sides[1].column):
        by_id, notes = rows_of_one_id(sides[0].ids, sides[1].ids, (given[0], given[1]))
    if by_id is not None:
        return sides, by_id, notes
    return sides, None, [f"No pairs are given: row i of {given[0]} belongs to row i of {given[1]}."]


def _file(source: str) -> Path:
    return expanded(source.partition("::")[0], "AUDIO").resolve()


def _side(
    source: str, kind: Kind, retriever: AudioTextRetriever | None, options: argparse.Namespace
) -> GivenRows:
    from atr_moco_plugin.analysis.reading import GivenRows, is_embeddings_file, read_embeddings

    if is_embeddings_file(source):
        return read_embeddings(str(expanded(source, "AUDIO")), kind)
    assert retriever is not None, "embedding needs a model"
    if kind == "text" or source == "-" or source.lower().endswith(".txt"):
        sentences = _sentences(source)
        return GivenRows("text", retriever.embed_text(sentences), sentences)
    return _embed_sounds(source, retriever)


def _sentences(source: str) -> list[str]:
    """The lines of a text file, or the distinct captions of a captions file in their order."""
    from atr_moco_plugin.data.tables.columns import row_captions
    from atr_moco_plugin.data.tables.rows import read_rows

    if not _is_table(source):
        return read_sentences(source)
    captions = (x for row in read_rows(expanded(source, "TEXT")) for x in row_captions(row) if x)
    found = list(dict.fromkeys(captions))
    if not found:
        raise InputError(f"{source} has no caption; give a captions file, or one sentence a line.")
    return found


def _is_table(source: str) -> bool:
    from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES

    return source.lower().endswith(TABLE_SUFFIXES)


def _names_audio(source: str) -> bool:
    """Whether a source of sentences is a captions file, which says to which sounds they belong."""
    from atr_moco_plugin.data.tables.columns import audio_column
    from atr_moco_plugin.data.tables.rows import columns_of

    return _is_table(source) and audio_column(columns_of(expanded(source, "TEXT"))) is not None


def _embed_sounds(source: str, retriever: AudioTextRetriever) -> GivenRows:
    import numpy as np
    import torch

    from atr_moco_plugin.analysis.reading import GivenRows
    from atr_moco_plugin.search.bulk import embed_each

    listing = list_sounds(
        argparse.Namespace(
            source=expanded(source, "AUDIO"), list=False, relative_to=None, suffix=[]
        )
    )
    rows, names, broken = [], [], []
    sounds = list(listing.found)
    broken += listing.notes.problems
    for found, embeddings, problems in embed_each(sounds, retriever):
        rows.append(embeddings)
        names += [sound.name for sound in found]
        broken += problems
    if not names:
        raise InputError(none_can_be_read(listing, broken))
    if broken:  # a note of the page, and of --json
        which = listed([f"{name} ({reason})" if reason else name for name, reason in broken])
        warnings.warn(f"{len(broken):,} cannot be read and are left out: {which}.", stacklevel=1)
    return GivenRows("audio", torch.from_numpy(np.concatenate(rows)), names)


def _names(given: list[str] | None, sides: list[GivenRows]) -> tuple[str, str]:
    """What both sides are called; the second name is not used where there is one side."""
    names = [side.name for side in sides] if given is None else given
    if len(names) != len(sides):
        raise InputError(
            f"--names has {len(names)}, but there are {len(sides)} kinds of rows: name each once."
        )
    if len(names) == 1:
        return names[0], f"not {names[0]}"
    if names[0] == names[1]:
        if given is not None:
            raise InputError(f"--names calls both {names[0]!r}; give them different names.")
        names = list(_KINDS)
    return names[0], names[1]
