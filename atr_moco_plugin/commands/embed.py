"""``embed``: the embeddings of many sounds and sentences in one file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atr_moco_plugin.commands.options import (
    DTYPE,
    add_model,
    add_sounds,
    list_sounds,
    load_retriever,
    none_can_be_read,
    refuse_table,
    report_broken,
)
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import say

if TYPE_CHECKING:
    from atr_moco_plugin.retriever import AudioTextRetriever
    from atr_moco_plugin.search.embeddings_file import Rows
    from atr_moco_plugin.search.partial import PartialEmbeddings
    from atr_moco_plugin.search.sources import Listing
    from atr_moco_plugin.search.walk import Found

SUMMARY = "write the embeddings of sounds and sentences to a file"
EXAMPLE = "atr-moco embed ~/sounds --model BUNDLE --output sounds.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_sounds(parser, optional=True)
    parser.add_argument(
        "--text", metavar="FILE", help="sentences, one a line; - reads standard input"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="a .safetensors, .npy or .parquet; what is done stands in FILE.partial until the end",
    )
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(options: argparse.Namespace) -> int:
    """Embed, write the file, and print how many rows it has."""
    from atr_moco_plugin.search.embeddings_file import (
        Embeddings,
        check_embeddings_output,
        check_names_fit,
        write_embeddings,
    )
    from atr_moco_plugin.search.partial import PartialEmbeddings

    if options.source is None and options.text is None:
        raise InputError("There is nothing to embed: give a folder of sounds, or --text FILE.")
    if options.source is None and (options.list or options.relative_to or options.suffix):
        raise InputError(
            "--list, --relative-to and --suffix say which sounds are read: give FOLDER, or leave "
            "them out."
        )
    output = expanded(options.output, "--output")
    check_embeddings_output(output, kinds=(options.source is not None) + (options.text is not None))
    sentences = None if options.text is None else read_sentences(options.text)
    check_names_fit(output, sentences or [])
    retriever = load_retriever(options)
    about = {
        "model": retriever.name,
        "fingerprint": retriever.fingerprint,
        "window_seconds": retriever.window_seconds,
        "hop_seconds": retriever.hop_seconds,
        "dtype": options.dtype or DTYPE,
    }
    rows: dict[str, Rows] = {}
    broken: list[tuple[str, str]] = []
    with ExitStack() as stack:
        if options.source is not None:
            listing = list_sounds(options)
            found = list(listing.found)
            check_names_fit(output, [*(x.name for x in found), *(sentences or [])])
            place = output.with_name(output.name + ".partial")
            partial = stack.enter_context(PartialEmbeddings(place, about))
            rows["audio"], broken = _embed_sounds(listing, found, partial, retriever)
        if sentences is not None:
            rows["text"] = _embed_sentences(retriever, sentences)
        write_embeddings(output, Embeddings(rows, about))
        if options.source is not None:
            partial.remove()
    report_broken(broken)
    if options.json:
        counts: dict[str, Any] = {kind: len(own.names) for kind, own in rows.items()}
        report = {**counts, "broken": broken, "output": str(output)}
        say(json.dumps(report, indent=2))
    else:
        parts = [f"{len(own.names):,} {kind}" for kind, own in rows.items()]
        say(f"{output}: {' and '.join(parts)} embeddings of {retriever.embed_dim} numbers")
    return 0


def read_lines(file: str, kind: str, instead: str) -> list[str]:
    """The lines of a text file, or of standard input where it is ``-``. They end in a line feed, a
    carriage return or both, as on any system.

    Args:
        file: that was given.
        kind: what the lines are, for messages.
        instead: what to give in place of a table.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is a table, or no text in UTF-8.
    """
    refuse_table(file, instead)
    try:
        content = sys.stdin.buffer.read() if file == "-" else expanded(file, "FILE").read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError as ex:
        raise MissingFileError(f"{file}: there is no such file of {kind}.") from ex
    except (OSError, UnicodeDecodeError) as ex:
        raise InputError(f"{file} cannot be read as UTF-8 text: {ex}.") from ex
    # `splitlines` would cut at characters that stand within sentences too, such as U+2028.
    lines = re.split("\r\n|\r|\n", text)
    return lines if lines[-1] else lines[:-1]


def read_sentences(file: str) -> list[str]:
    """:func:`read_lines` of sentences.

    Raises:
        InputError: as it does, and if there is no line, or one has no word.
    """
    from atr_moco_plugin.ids import has_words

    lines = read_lines(file, "sentences", "a text file with one sentence a line")
    if not lines:
        raise InputError(f"{file} has no line: give one sentence a line.")
    for number, line in enumerate(lines, 1):
        if not has_words(line):
            raise InputError(f"{file}, line {number}: {line!r} has no word; correct or remove it.")
    return lines


def _embed_sounds(
    listing: Listing,
    found: Sequence[Found],
    partial: PartialEmbeddings,
    retriever: AudioTextRetriever,
) -> tuple[Rows, list[tuple[str, str]]]:
    import numpy as np

    from atr_moco_plugin.ids import clip_id
    from atr_moco_plugin.search.bulk import embed_each
    from atr_moco_plugin.search.embeddings_file import Rows

    todo = [x for x in found if partial.get(x) is None]
    if len(todo) < len(found):
        print(f"{len(found) - len(todo):,} are done already.", file=sys.stderr)
    broken = list(listing.notes.problems)
    for group, embeddings, problems in embed_each(todo, retriever):
        partial.add(group, embeddings)
        broken += problems
    pairs = [(x, row) for x in found if (row := partial.get(x)) is not None]
    if not pairs:
        if partial.is_empty():  # else an earlier command was given other sounds
            partial.remove()
        raise InputError(none_can_be_read(listing, broken))
    data_set, below = Path(listing.name).name, listing.folder.rstrip("/") + "/"
    names = [x.name for x, _ in pairs]
    ids = [clip_id(data_set, name.removeprefix(below)) for name in names]
    rows = Rows(np.stack([row for _, row in pairs]), names, np.array(ids, np.int64))
    return rows, broken


def _embed_sentences(retriever: AudioTextRetriever, sentences: list[str]) -> Rows:
    import numpy as np

    from atr_moco_plugin.ids import caption_id
    from atr_moco_plugin.search.embeddings_file import Rows

    ids = np.array([caption_id(sentence) for sentence in sentences], np.int64)
    return Rows(retriever.embed_text(sentences).numpy(), sentences, ids)
