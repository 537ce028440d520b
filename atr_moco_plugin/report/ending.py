"""How a run ends: the figures at a glance, and where the page is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.evaluation.final import RESULTS_FILE
from atr_moco_plugin.evaluation.short_table import short_table
from atr_moco_plugin.evaluation.split_evaluation import SplitEvaluation
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.report import ReportError, collect_examples, write_report
from atr_moco_plugin.report.examples import EXAMPLES_FILE


def show_results(
    evaluations: Mapping[str, SplitEvaluation],
    dataset: AudioTextDataset,
    output_dir: Path,
    *,
    examples_of: str,
    with_report: bool,
    warn: Callable[[str], object],
) -> None:
    """Print the figures of the last split that has some, write the report, and say where it is.

    Args:
        evaluations: by split, evaluated.
        dataset: has the splits; the report plays some of its clips.
        output_dir: of the run.
        examples_of: split whose retrievals the report shows.
        with_report: whether to write one.
        warn: called with a sentence where there is no report: the run itself is done.
    """
    results = [evaluation.result for evaluation in evaluations.values() if evaluation.result]
    if results:
        say(f"\n{short_table(results[-1])}\n")
    shown = evaluations[examples_of]
    page = figures = output_dir / RESULTS_FILE
    try:
        (output_dir / EXAMPLES_FILE).unlink(missing_ok=True)  # of an earlier evaluation
        if with_report:
            if shown.result:
                collect_examples(
                    shown.similarity,
                    shown.split.retrieval_set,
                    dataset.load,
                    dataset.sample_rate,
                    split=shown.split.name,
                    checkpoint=object_if_whole(figures).get("checkpoint"),
                ).save(output_dir)
            page = write_report(output_dir)
    except (ReportError, OSError) as ex:
        warn(f"There is no report: {ex}")
    say(f"{'Figures' if page == figures else 'Report'}: {page}")
