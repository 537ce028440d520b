"""Training clips that could not be read: each process notes its own, the end of a run names all."""

from __future__ import annotations

import json
import logging
from pathlib import Path

FOLDER = "skipped_clips"
"""In a run's output folder. Each process has a file of lines ``{"clip": key, "reason": text}``."""

_LOGGER = logging.getLogger(__name__)
_NAMED = 10


class SkippedClips:
    """Notes one process's unreadable clips as they are met, so that a killed run has them too.

    Args:
        output_dir: the run's.
        process: index of this process among those that share the data.
    """

    def __init__(self, output_dir: Path, process: int) -> None:
        self._file = output_dir / FOLDER / f"process_{process}.jsonl"

    def __call__(self, key: str, reason: str) -> None:
        """Note a clip and why it cannot be used."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(json.dumps({"clip": key, "reason": reason}) + "\n")
        except OSError as ex:
            _LOGGER.warning("%s: cannot be written (%s); see the log.", self._file, ex.strerror)


def forget_skipped(output_dir: Path) -> None:
    """Remove the notes of an earlier run: for the first process of a run that begins anew, before
    any process notes a clip."""
    for file in (output_dir / FOLDER).glob("*.jsonl"):
        file.unlink()


def read_skipped(output_dir: Path) -> dict[str, str]:
    """The clips that any process skipped, by key, with the reason.

    A half-written line is left out. Runs of version 0.1.0 have files named ``rank_N.jsonl``.
    """
    skipped: dict[str, str] = {}
    for file in sorted((output_dir / FOLDER).glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            try:
                record = json.loads(line)
                skipped[str(record["clip"])] = str(record["reason"])
            except (ValueError, KeyError, TypeError):
                continue
    return dict(sorted(skipped.items()))


def all_skipped(output_dir: Path) -> str | None:
    """A sentence at the end of a run: how many clips were skipped, and which; None where none
    was."""
    skipped = read_skipped(output_dir)
    if not skipped:
        return None
    names = ", ".join(map(repr, list(skipped)[:_NAMED]))
    more = f" and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return (
        f"{len(skipped):,} training clip(s) could not be read, others took their place: "
        f"{names}{more}. {output_dir / FOLDER} has the reasons."
    )
