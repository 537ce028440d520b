"""The last evaluation of a run: the best checkpoint on every split, into the output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, write_queries
from atr_moco_plugin.evaluation.split_evaluation import SplitEvaluation
from atr_moco_plugin.io.atomic import write_atomically

RESULTS_FILE = "retrieval.json"


@torch.inference_mode()
def evaluate_splits(
    evaluations: Mapping[str, SplitEvaluation], facts: Mapping[str, Any], output_dir: Path
) -> Exception | None:
    """Evaluate a model on the splits of a run, with all processes.

    The figures of a split go to ``retrieval.json`` as soon as they are there, and what each query
    got to ``queries.safetensors``. A split that cannot be evaluated is named beside the others.

    Args:
        evaluations: by split; the model is in eval mode.
        facts: what ``retrieval.json`` says besides: criterion, data set, seed, checkpoint.
        output_dir: where the first process writes.

    Returns:
        What to end the run with, where a split failed.
    """
    summary: dict[str, Any] = {
        **facts,
        "splits": {},
        # Each until it is done: the file tells the truth of a run that is killed in between.
        "failed": dict.fromkeys(evaluations, "The run ended before it was evaluated."),
    }
    failed: Exception | None = None
    for split in evaluations:
        error = _evaluate_split(split, evaluations, summary, output_dir)
        failed = failed or error
        if error is not None and not isinstance(error, (InputError, OSError)):
            break  # a bug, which the other processes may not have met
    if not isinstance(failed, (InputError, OSError)):
        return failed
    return InputError(
        f"No figures on {' and '.join(summary['failed'])}: {failed} {output_dir / RESULTS_FILE} "
        "has those of the other splits."
    )


def _evaluate_split(
    split: str,
    evaluations: Mapping[str, SplitEvaluation],
    summary: dict[str, Any],
    output_dir: Path,
) -> Exception | None:
    """Evaluate one split, and put its figures, or why there are none, into the file."""
    failed: Exception | None = None
    try:
        evaluations[split].evaluate(final=True)
        if process_index() == 0:  # before the figures, which refer to them
            done = {name: x.queries for name, x in evaluations.items() if x.queries}
            write_queries(output_dir / QUERIES_FILE, done)
        del summary["failed"][split]
        summary["splits"][split] = evaluations[split].result
    except Exception as ex:
        reason = " ".join(str(ex).split())
        if not isinstance(ex, (InputError, OSError)):
            reason = f"{type(ex).__name__}: {reason}"
        summary["failed"][split] = reason
        failed = ex
    if process_index() == 0:
        if not summary["splits"]:  # of an earlier evaluation into this folder
            (output_dir / QUERIES_FILE).unlink(missing_ok=True)
        content = {key: value for key, value in summary.items() if key != "failed" or value}
        write_atomically(output_dir / RESULTS_FILE, json.dumps(content, indent=2) + "\n")
    return failed
