"""What a run's folder says of its checkpoints, kept where another command is refused there."""

from __future__ import annotations

import os
from pathlib import Path

from atr_moco_plugin.hosts.fairseq2.evaluation.clips import FILE
from atr_moco_plugin.hosts.fairseq2.runs.folder import MODEL_FILE

_FILES = ("config.yaml", MODEL_FILE, FILE, "tokenizer/*")


class Record:
    """The files that say how a folder's checkpoints were made: configuration, model, tokenizer and
    the clips that are left out.

    fairseq2 writes the configuration before it builds anything, and a tokenizer that is trained on
    captions is needed before a checkpoint is opened. Where the command is refused after that, the
    files would be of a run that never was, and an evaluation would take its tokenizer.

    Args:
        out: a run's output folder, which this process has claimed.
    """

    def __init__(self, out: Path) -> None:
        self._kept: dict[Path, bytes] = {}
        if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") != "0":
            return
        for file in (file for pattern in _FILES for file in out.glob(pattern)):
            if file.is_file() and os.access(file, os.R_OK):
                self._kept[file] = file.read_bytes()

    def replace(self) -> None:
        """Let the files of the present command stand: the run goes on with it."""
        self._kept = {}

    def restore(self) -> None:
        """Put the files back, unless :meth:`replace` was called."""
        for file, content in self._kept.items():
            if not file.is_file() or file.read_bytes() != content:
                file.parent.mkdir(parents=True, exist_ok=True)
                temporary = file.with_name(f".{file.name}.{os.getpid()}")
                temporary.write_bytes(content)
                os.replace(temporary, file)
        self._kept = {}
