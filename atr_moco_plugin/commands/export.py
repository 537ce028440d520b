"""``export``: a training run as a bundle, and a bundle in the form of another library."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import say

SUMMARY = "make a bundle of a training run, or other libraries' files of a run or bundle"
EXAMPLE = "atr-moco export runs/esc50 models/esc50"

FORMS = ("bundle", "sentence-transformers", "onnx", "clap")
"""Values of ``--to``; all but the first are names in ``atr_moco_plugin.exporting.EXPORTERS``."""

_NOT_IN = {"clap": ("window", "hop", "figures"), "onnx": ("figures",)}
"""Form to the options that say nothing that it has a place for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``RUN BUNDLE`` and what is wanted otherwise."""
    parser.add_argument(
        "source",
        metavar="RUN",
        help="output folder or checkpoint of a training run (fairseq2, Trainer, or epoch_N.pt of "
        "LAION-CLAP); or a bundle, a ClapModel folder or a name on the Hugging Face Hub",
    )
    parser.add_argument("out", metavar="OUT", help="folder to write; an older bundle is replaced")
    parser.add_argument(
        "--to", choices=FORMS, default="bundle", help="what to write (default: bundle)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="of a run's folder: best, last, or its name, such as step_500 (default: best; the "
        "last where there are no scores)",
    )
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="longest sound that is embedded at once (default: what the run evaluated with)",
    )
    parser.add_argument(
        "--hop",
        type=float,
        metavar="SECONDS",
        help="from one window to the next (default: the window)",
    )
    parser.add_argument(
        "--figures",
        metavar="FILE",
        help="retrieval.json of an evaluation, for the model card (default: the run's own)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or name, for runs that keep no tokenizer (LAION-CLAP's default: roberta-base)",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> int:
    """Write the bundle, or what ``--to`` asks for."""
    for name in _NOT_IN.get(options.to, ()):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} does nothing with --to {options.to}: leave it out.")
    out = expanded(options.out, "OUT")
    write = writer(options)
    if options.to == "bundle":
        write(out)
    else:
        _write_form(options, write, out)
    if options.json:
        say(json.dumps({"form": options.to, "folder": str(out), "from": options.source}))
    else:
        say(f"{out}: {options.to}")
    return 0


def writer(options: argparse.Namespace) -> Callable[[Path], None]:
    """A function that writes the bundle of ``RUN`` into a folder.

    Raises:
        InputError: for a place that is no run and no model.
    """
    # Here, so that the command's help comes at once.
    from atr_moco_plugin.retriever.exported import ExportOptions
    from atr_moco_plugin.retriever.runs import export_run, made_by

    path = expanded(options.source, "RUN")
    maker = made_by(path)
    if maker is None:
        return _copier(options)
    figures = None if options.figures is None else expanded(options.figures, "--figures")
    if figures is not None and not figures.is_file():
        raise MissingFileError(f"--figures {figures} is not there: give a retrieval.json.")
    wanted = ExportOptions(
        checkpoint=options.checkpoint,
        window_seconds=options.window,
        hop_seconds=options.hop,
        tokenizer=options.tokenizer,
        figures=figures,
    )
    exported = export_run(path, maker, wanted)
    return lambda folder: exported.write(folder)


def _copier(options: argparse.Namespace) -> Callable[[Path], None]:
    """Of a model, which has all that a bundle has."""
    from atr_moco_plugin.retriever import AudioTextRetriever

    for name in ("checkpoint", "window", "hop", "figures", "tokenizer"):
        if getattr(options, name) is not None:
            raise InputError(
                f"--{name} is for training runs, but {options.source} is a model: leave it out."
            )
    retriever = AudioTextRetriever.from_pretrained(options.source, device="cpu")
    return lambda folder: retriever.save_pretrained(folder)


def _write_form(options: argparse.Namespace, write: Callable[[Path], None], out: Path) -> None:
    from atr_moco_plugin.exporting import EXPORTERS
    from atr_moco_plugin.retriever import AudioTextRetriever

    with tempfile.TemporaryDirectory(prefix="atr-moco-") as folder:
        bundle = Path(folder) / (out.resolve().name or "bundle")  # which is the title of its card
        write(bundle)
        retriever = AudioTextRetriever.from_pretrained(str(bundle), device="cpu")
        retriever.name = options.source  # what messages name, not a folder that is gone then
        EXPORTERS[options.to](retriever, out)
