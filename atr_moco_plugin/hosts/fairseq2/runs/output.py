"""The output folder of a command: whether it can be used, and what a refused command leaves there.

fairseq2 writes the configuration before it builds anything, so all of this comes before fairseq2.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.queries import QUERIES_FILE
from atr_moco_plugin.hosts.fairseq2.config.command_line import option, parse, read_yaml
from atr_moco_plugin.hosts.fairseq2.runs.folder import CLIPS_FILE, MODEL_FILE
from atr_moco_plugin.io.atomic import new_file
from atr_moco_plugin.io.lock import lock_folder
from atr_moco_plugin.io.processes import is_first_process

EVALUATION_FILES = ("retrieval.json", QUERIES_FILE, "embeddings.safetensors")
TREC, DCASE = "trec", "dcase"
"""What an evaluation writes: files, a folder of ``*.qrels`` and ``*.run``, and one of ``*.csv``."""

_DESCRIBING = ("config.yaml", MODEL_FILE, CLIPS_FILE, "tokenizer/*")
_PATTERN = "[]*?"


def prepare_output(check: Callable[[Path, Namespace], None]) -> Path | None:
    """Check the output folder of this process's command line, and claim it.

    Args:
        check: raises :class:`~atr_moco_plugin.errors.InputError` for a folder that cannot be used;
            called with it and the arguments.

    Returns:
        The folder, where it is known by now and will be written to.

    Raises:
        SystemExit: with status 2 and one line on standard error, for a folder that ``check``
            refuses and for one that another process uses.
    """
    arguments = parse(sys.argv[1:])
    out: Path | None = arguments.output_dir
    if out is None or arguments.dump_config:
        return None
    out = out.expanduser()
    try:
        check(out, arguments)
        # With sweep folders a run's own is known when its configuration is complete.
        if not option(arguments, "common.no_sweep_dir", True):
            return None
        lock_folder(out)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    return out


def check_for_training(out: Path, arguments: Namespace) -> None:
    """Refuse the folder of an evaluation, a name that fairseq2 takes for a pattern, and
    checkpoints in another folder, where only a command that names it again would find them.

    Raises:
        InputError: for such a folder or option.
    """
    check_name(out)
    checkpoints = out / "checkpoints"
    if arguments.checkpoint_dir not in (None, checkpoints):
        raise InputError(
            "`--checkpoint-dir` is not for this recipe: a run has its checkpoints in "
            f"{checkpoints}, where a resume, an evaluation, an export and `init` look for them: "
            "leave it out (a run that has them elsewhere goes on once they are moved there)."
        )
    if {"run", "split"} <= read_yaml(out / "config.yaml").keys():
        raise InputError(
            f"{out} holds an evaluation; a training run would overwrite its config.yaml and "
            "retrieval.json: give another output folder."
        )


def check_name(folder: Path) -> None:
    """Refuse an output folder whose name fairseq2 takes for a pattern.

    It would not find them there, and a run would begin anew over its own.

    Raises:
        InputError: naming the character.
    """
    folder = folder.resolve()
    bad = [x for x in _PATTERN if x in str(folder)]
    if bad:
        raise InputError(
            f"{folder} has `{bad[0]}` in its name, which fairseq2 takes for a pattern and then "
            "finds no checkpoints there: give an output folder without `[`, `]`, `*` and `?`."
        )


def check_for_evaluation(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder whose files would mix with those of a new evaluation.

    Args:
        out: the folder.
        overwrite: whether an earlier evaluation there is to make room, see
            :func:`remove_evaluation`.

    Raises:
        InputError: for the folder of a training run, and for one of another evaluation.
    """
    # Its checkpoints may have been moved away.
    if (out / "checkpoints").is_dir() or (out / MODEL_FILE).is_file():
        raise InputError(
            f"{out} is the output folder of a training run; give the evaluation a folder of its "
            "own, since it would overwrite config.yaml and retrieval.json there."
        )
    there = [name for name in (*EVALUATION_FILES, TREC, DCASE) if (out / name).exists()]
    if there and not overwrite:
        raise InputError(
            f"{out} holds another evaluation ({', '.join(there)}), whose files would mix with the "
            "new ones: give another output folder, or `overwrite=true` to remove them."
        )


def remove_evaluation(out: Path) -> None:
    """Remove what an evaluation writes, and nothing else."""
    for name in EVALUATION_FILES:
        (out / name).unlink(missing_ok=True)
    trec, dcase = out / TREC, out / DCASE
    for file in (*trec.glob("*.qrels"), *trec.glob("*.run"), *dcase.glob("t2a_*.csv")):
        file.unlink()
    for folder in (trec, dcase):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def description_kept(out: Path | None, started: Callable[[], bool]) -> Iterator[None]:
    """Put the files that say how a run's checkpoints were made, or an evaluation's figures, back as
    they were, unless the command within has begun.

    These are configuration, model, tokenizer and the list of clips that are left out. A command
    overwrites them before a checkpoint is opened; where it is refused after that, an evaluation
    would take a tokenizer that the model was not trained with. Processes other than the first do
    nothing.

    Args:
        out: the output folder of a run or an evaluation, which this process has claimed; None
            where a command has none.
        started: whether the files are now those of the command.
    """
    before = _description(out) if out is not None and is_first_process() else {}
    try:
        yield
    finally:
        for file, content in () if started() else before.items():
            if not file.is_file() or file.read_bytes() != content:
                with new_file(file) as temporary:
                    temporary.write_bytes(content)


def _description(out: Path) -> dict[Path, bytes]:
    files = [file for pattern in _DESCRIBING for file in out.glob(pattern)]
    return {x: x.read_bytes() for x in files if x.is_file() and os.access(x, os.R_OK)}
