"""``search``: find the sounds of an index that fit a sentence."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from atr_moco_plugin.commands.options import (
    add_correct,
    add_model,
    corrected,
    load_retriever,
    positive,
)
from atr_moco_plugin.errors import InputError, counted
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import printable, say

if TYPE_CHECKING:
    from torch import Tensor

    from atr_moco_plugin.retriever import AudioTextRetriever
    from atr_moco_plugin.search.hits import Hit
    from atr_moco_plugin.search.store import Store

SUMMARY = "find the sounds of an index that fit a sentence, or a sound"
EXAMPLE = (
    'atr-moco search "a dog barks far away" --index ~/sounds.index --not "wind in a microphone"'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("sentence", metavar="SENTENCE", nargs="?", help="what is to be heard")
    parser.add_argument(
        "--index", required=True, metavar="DIR", help="that `index` filled, or postgresql://..."
    )
    parser.add_argument(
        "-k", type=positive, default=10, metavar="N", help="how many hits (default: 10)"
    )
    parser.add_argument(
        "--rerank",
        action="store_true",
        help="order the first hits anew by the model's matching head, which hears each again",
    )
    add_correct(parser)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="score every window, slowly, also where FAISS or an HNSW index would choose some",
    )
    group = parser.add_argument_group("more of the query; each may be repeated")
    group.add_argument(
        "--and",
        dest="also",
        action="append",
        default=[],
        metavar="SENTENCE",
        help="is to be heard in the same recording too",
    )
    group.add_argument(
        "--not",
        dest="unwanted",
        action="append",
        default=[],
        metavar="SENTENCE",
        help="is not to be heard in it",
    )
    group.add_argument(
        "--like", action="append", default=[], metavar="FILE", help="a sound that it is to be like"
    )
    group = parser.add_argument_group("which recordings")
    group.add_argument(
        "--path",
        metavar="PATTERN",
        help="whose whole path matches, such as '*/birds/*.wav'",
    )
    for end, what in (("min", "more"), ("max", "less")):
        group.add_argument(
            f"--{end}-seconds", type=float, metavar="S", help=f"that last S or {what}"
        )
    add_model(parser, required=False, more=" (default: the one that the index was made with)")
    parser.add_argument("--json", action="store_true", help="print a list of hits as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the hits."""
    from atr_moco_plugin.search.bank import refuse_no_bank
    from atr_moco_plugin.search.engines import open_index, shown_address
    from atr_moco_plugin.search.hits import problem_of
    from atr_moco_plugin.search.store import Filter

    alpha = corrected(options)
    _check(options, alpha)
    only = Filter(
        path=options.path, min_seconds=options.min_seconds, max_seconds=options.max_seconds
    )
    with open_index(options.index, engine="exact" if options.exact else None) as store:
        _check_filled(store, shown_address(options.index))
        if alpha and store.bank() is None:
            refuse_no_bank(shown_address(options.index))
        retriever = _retriever(store, options)
        hits = _hits(store, retriever, options, only, alpha)
    problems = [problem_of(hit.recording) for hit in hits]
    if options.json:
        say(json.dumps([_as_json(*x) for x in zip(hits, problems, strict=True)], indent=2))
    else:
        for line in _table(hits, corrected=alpha > 0):
            say(line)
        if other := sum(map(bool, problems)):
            print(
                f"NOTE: the files of {other:,} of the {counted(len(hits), 'hit')} are gone or have "
                "changed since they were indexed (--json says which): run `index` again.",
                file=sys.stderr,
            )
    if not hits:
        print(_nothing(options), file=sys.stderr)
    return 0


def _check(options: argparse.Namespace, alpha: float) -> None:
    """Refuse what need no model to be refused."""
    sentences = [x for x in (options.sentence, *options.also) if x is not None]
    for sentence in (*sentences, *options.unwanted):
        if not sentence.strip():
            raise InputError("A sentence is empty: say what is to be heard.")
    if not sentences and not options.like:
        raise InputError('There is nothing to search for: give a sentence, or "--like FILE".')
    if options.rerank and (len(sentences) != 1 or options.like or options.unwanted):
        raise InputError(
            "--rerank compares one sentence with sounds: leave out --and, --not and --like."
        )
    if alpha and options.like:
        raise InputError(
            "--correct is for sentences, since the bank has no sounds: leave it out, or --like."
        )


def _check_filled(store: Store, address: str) -> None:
    counts = store.counts()
    if not counts.windows:
        broken = f" ({counts.broken:,} could not be read)" if counts.broken else ""
        raise InputError(f"{address} has no recordings yet{broken}: fill it with `index`.")


def _retriever(store: Store, options: argparse.Namespace) -> AudioTextRetriever:
    """The model of the index, or the given one where it is the same."""
    from atr_moco_plugin.search.build import index_info
    from atr_moco_plugin.search.checks import refuse_other
    from atr_moco_plugin.search.engines import shown_address

    address = shown_address(options.index)
    retriever = load_retriever(options, store.info.model, address)
    if retriever.fingerprint != store.info.fingerprint:
        refuse_other(address, store.info, index_info(retriever))
    return retriever


def _hits(
    store: Store,
    retriever: AudioTextRetriever,
    options: argparse.Namespace,
    only: Any,
    alpha: float,
) -> list[Hit]:
    sentences = [x for x in (options.sentence, *options.also) if x is not None]
    query: list[str] | Tensor = sentences
    if options.like:
        import torch

        sounds = retriever.embed_audio([str(expanded(x, "--like")) for x in options.like])
        query = torch.cat([retriever.embed_text(sentences), sounds]) if sentences else sounds
    return retriever.search(
        query, store, options.k,
        unwanted=options.unwanted, only=only, rerank=options.rerank, correct=alpha,
    )  # fmt: skip


def _as_json(hit: Hit, problem: str) -> dict[str, Any]:
    return {
        "path": hit.recording.path,
        "member": hit.recording.member,
        "start": hit.start,
        "end": hit.end,
        "moment": [hit.moment_start, hit.moment_end],
        "score": hit.score,
        "cosine": hit.cosine,
        "reranked": hit.reranked,
        "problem": problem,
    }


def _table(hits: Sequence[Hit], *, corrected: bool) -> Iterator[str]:
    """Lines with a hit each; on a terminal no longer than it, with the end of a long path."""
    if not hits:
        return
    rows = [["score", "from", "to", "best at", "path"]]
    for hit in hits:
        score = hit.score if hit.reranked is None else hit.reranked
        times = [_clock(x) for x in (hit.start, hit.end, hit.moment_start)]
        mark = "*" if hit.reranked is None and any(x.reranked is not None for x in hits) else ""
        rows.append([f"{score:.3f}{mark}", *times, printable(hit.recording.name)])
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    most = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
        left = "  ".join(cells) + "  "
        yield left + (row[-1] if most is None else _end(row[-1], most - len(left)))
    if any(row[0].endswith("*") for row in rows):
        yield f"* not re-ranked, at its place by {'corrected score' if corrected else 'cosine'}"


def _end(text: str, most: int) -> str:
    """The end of a text, no wider than ``most`` columns, of which many letters take two."""
    left = max(most, 12)
    for place in range(len(text) - 1, -1, -1):
        left -= 2 if east_asian_width(text[place]) in "WF" else 1
        if left < (place > 0):
            return "\N{HORIZONTAL ELLIPSIS}" + text[place + 1 :]
    return text


def _clock(seconds: float) -> str:
    """Such as 0:05, 1:02.5 or 2:00:00."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"


def _nothing(options: argparse.Namespace) -> str:
    text = "No recording of the index is one that the filters take"
    if options.path is not None and not options.path.startswith(("/", "*")):
        return f"{text}: --path is compared with whole paths, '*{options.path}*' finds a part."
    return f"{text}."
