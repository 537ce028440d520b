"""``index``: embed the sounds of a folder, so that they can be searched."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from atr_moco_plugin.commands.options import (
    add_model,
    add_sounds,
    list_sounds,
    load_retriever,
    positive,
    report_broken,
)
from atr_moco_plugin.errors import InputError, counted
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import duration, printable, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from atr_moco_plugin.retriever import AudioTextRetriever
    from atr_moco_plugin.search.bank import BankInfo
    from atr_moco_plugin.search.build import Report
    from atr_moco_plugin.search.store import Store

SUMMARY = "embed the sounds of a folder, so that they can be searched; again: only what is new"
EXAMPLE = "atr-moco index ~/sounds --model BUNDLE --index ~/sounds.index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_sounds(parser)
    parser.add_argument(
        "--index",
        required=True,
        metavar="DIR",
        help="the index, a folder or postgresql://...; made where it does not exist",
    )
    parser.add_argument(
        "--engine",
        choices=("exact", "faiss"),
        help="what will search it (default: what it has; of a new index exact)",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help=(
            "also remove recordings that are missing as if their disk were not mounted; of a list "
            "or a table, all that it does not name"
        ),
    )
    bank = parser.add_mutually_exclusive_group()
    bank.add_argument(
        "--bank",
        metavar="FILE",
        help="keep the sentences of a text file, one a line, so that `search --correct` can take "
        "off what a sound has in common with all of them; captions of the model's training data",
    )
    bank.add_argument("--no-bank", action="store_true", help="keep no bank any more")
    parser.add_argument(
        "--neighbours",
        type=positive,
        metavar="K",
        help="of --bank: how many of its sentences, those nearest to a sound, say what is taken "
        "off it (default: 128; at most a tenth of the bank)",
    )
    parser.add_argument(
        "--retry-broken", action="store_true", help="try again what could not be read, unchanged"
    )
    add_model(parser)
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads that decode (default: one a core, 2 to 8)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    """Bring the index up to date and print what was done; 130 where Ctrl-C was pressed."""
    from atr_moco_plugin.distributed import process_index
    from atr_moco_plugin.search.build import build
    from atr_moco_plugin.search.ranks import local_device, processes

    with processes(), _interruptible() as stop:
        first = process_index() == 0
        listing, sentences = None, None
        if first:
            sentences = _bank_sentences(options)
            listing = list_sounds(options, may_be_none=_exists(options.index))
        options.device = options.device or local_device()
        retriever = load_retriever(options)
        bank = None
        with _open(options, retriever) if first else nullcontext() as store:

            def set_bank() -> None:
                assert store is not None, "there is a plan of an index alone"
                _set_bank(store, retriever, sentences, options, stop)

            report = build(
                store,
                retriever,
                listing,
                prune=options.prune,
                retry_broken=options.retry_broken,
                threads=options.threads,
                stop=stop,
                planned=set_bank,  # what is refused changes no bank
                progress=first,
            )
            if store is not None:
                bank = store.bank()
                if not report.interrupted:
                    store.finish(progress=True)
    if first:
        _print(report, bank, options)
    return 130 if report.interrupted else 0


def _open(options: argparse.Namespace, retriever: AudioTextRetriever) -> Store:
    from atr_moco_plugin.search.build import index_info
    from atr_moco_plugin.search.engines import open_index

    info = index_info(retriever)
    return open_index(options.index, write=True, info=info, engine=options.engine)


def _bank_sentences(options: argparse.Namespace) -> list[str] | None:
    """The sentences of ``--bank``; None where it is not given."""
    from atr_moco_plugin.commands.embed import read_sentences
    from atr_moco_plugin.search.bank import bank_sentences

    if options.bank is None:
        if options.neighbours is not None:
            raise InputError("--neighbours are sentences of a bank: give --bank FILE too.")
        return None
    sentences = read_sentences(options.bank)
    try:
        return bank_sentences(sentences)
    except InputError as ex:
        raise InputError(f"{options.bank}: {ex}") from None


def _set_bank(
    store: Store,
    retriever: AudioTextRetriever,
    sentences: list[str] | None,
    options: argparse.Namespace,
    stop: Callable[[], bool],
) -> None:
    """Give the index the bank that is wanted, where it has another."""
    from atr_moco_plugin.search.bank import NEIGHBOURS, Bank, bank_info

    if options.no_bank and store.bank() is not None:
        store.set_bank(None)
    if sentences is None:
        return
    info = bank_info(sentences, options.neighbours or NEIGHBOURS)
    if store.bank() == info:
        return
    embeddings = _embedded(retriever, sentences, stop)
    if embeddings is not None:
        store.set_bank(Bank(info, embeddings), progress=True)


def _embedded(
    retriever: AudioTextRetriever, sentences: list[str], stop: Callable[[], bool]
) -> NDArray[np.float32] | None:
    """The embeddings of a bank; None where Ctrl-C was pressed meanwhile."""
    from tqdm import tqdm

    def go_on(done: int) -> None:
        if stop():
            raise _StoppedError
        bar.update(done)

    try:
        with (
            warnings.catch_warnings(record=True) as notes,
            tqdm(total=len(sentences), unit="sentence", desc="bank", mininterval=0.5) as bar,
        ):
            warnings.simplefilter("always", UserWarning)
            # All at once, so that each note counts the whole bank.
            table: NDArray[np.float32] = retriever.embed_text(sentences, progress=go_on).numpy()
    except _StoppedError:
        return None
    for note in notes:
        if note.category is UserWarning:
            print(f"NOTE: {' '.join(str(note.message).split())}", file=sys.stderr)
    return table


def _exists(index: str) -> bool:
    return "://" in index or expanded(index, "--index").exists()


class _StoppedError(Exception):
    """Ctrl-C was pressed while a bank was embedded."""


class _Stop:
    """Whether Ctrl-C has been pressed."""

    pressed = False

    def __call__(self) -> bool:
        return self.pressed

    def press(self, number: int, frame: FrameType | None) -> None:
        """The first time a flag, so that what is embedded is written; then an interrupt."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        print("\nFinishing a batch. Ctrl-C again stops at once.", file=sys.stderr)


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop.press)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _print(report: Report, bank: BankInfo | None, options: argparse.Namespace) -> None:
    report_broken(report.broken)
    report_broken(report.unsettled, "could not be read this time")
    report_broken(
        [(name, "") for name in report.kept],
        "not there, but kept as on a disk that is not mounted (--prune removes such)",
    )
    if options.json:
        kept = None if bank is None else bank._asdict()
        say(json.dumps({**asdict(report), "bank": kept}, indent=2))
    else:
        from atr_moco_plugin.search.engines import shown_address

        text = _summary(report, shown_address(options.index))
        if bank:
            text += (
                f"; a bank of {counted(bank.sentences, 'sentence')}, "
                f"{counted(bank.neighbours, 'neighbour')}"
            )
        say(text)
    if report.interrupted:
        print("Interrupted: run the same command again to go on.", file=sys.stderr)


def _summary(report: Report, index: str) -> str:
    counts = (
        (report.new, "new"),
        (report.changed, "changed"),
        (report.touched, "newer with the same content"),
        (report.unchanged, "unchanged"),
        (report.gone, "gone"),
        (len(report.broken), "broken"),
        (len(report.unsettled), "not read this time"),
    )
    recordings = ", ".join(f"{number:,} {what}" for number, what in counts if number) or "nothing"
    text = (
        f"{index}: {recordings}; {counted(report.windows, 'window')} of "
        f"{duration(report.seconds)} embedded in {duration(report.wall_seconds)}"
    )
    other = sum(report.other.values())
    if other:
        most = list(report.other.items())[:3]
        kinds = ", ".join(f"{number:,} {suffix or 'without suffix'}" for suffix, number in most)
        text += f"; {counted(other, 'other file')} passed over ({kinds})"
    return printable(text)
