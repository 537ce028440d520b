"""The report of a run: one HTML file with tables, curves, spectra and retrievals to listen to.

``collect_examples`` chooses the retrievals while the model is at hand, ``write_report`` makes the
page from the files of the run, then or later: ``python -m atr_moco_plugin.report RUN``. Here belong
figures, templates and the reading of a run's folder, and what other pages are made with. matplotlib
and jinja2 are an extra: ``packages`` says so where they are not installed. May not import a host, a
recipe or the study.
"""

from __future__ import annotations

import os
from pathlib import Path

from atr_moco_plugin.report.collect import collect_examples
from atr_moco_plugin.report.examples import Examples
from atr_moco_plugin.report.packages import page_packages
from atr_moco_plugin.report.run_folder import ReportError

__all__ = ["Examples", "ReportError", "collect_examples", "write_report"]


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Write ``report/index.html`` of a run from the files in its folder.

    A part whose file is missing is left out, with a sentence that says why. The same files give the
    same page, byte for byte.

    Args:
        run_folder: the output folder of a run.

    Returns:
        The page.

    Raises:
        ReportError: when the folder is not the output of a run, the page cannot be written, or the
            packages of the extra ``report`` are not installed.
    """
    then = f" and write the report with `python -m atr_moco_plugin.report {run_folder}`"
    with page_packages("The report", then, ReportError):
        from atr_moco_plugin.report.page import build_report
    return build_report(Path(run_folder))
