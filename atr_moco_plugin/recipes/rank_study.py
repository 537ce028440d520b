"""``python -m atr_moco_plugin.recipes.rank_study OUT --config recipe=esc50 ...``.

Trains one recipe over a list of queue sizes, and optionally momenta, seeds and positives modes, and
shows rank and retrieval by queue size. The same command goes on where it stopped; every run is an
ordinary run of the recipe in ``OUT/runs``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq2.utils.argparse import ConfigAction
from fairseq2.utils.config import StandardConfigMerger

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.runs.output import check_name
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.io.lock import lock_folder
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.study.page import write_study
from atr_moco_plugin.study.plan import StudyConfig, plan, read_yaml, write_yaml
from atr_moco_plugin.study.runner import Ended, is_finished, train_missing
from atr_moco_plugin.study.summary import aggregate
from atr_moco_plugin.study.verdict import verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        0, 1 when a run failed, 2 for a mistake in the configuration, 128 and the signal's number
        when a signal ended it.
    """
    args = _parser().parse_args(arguments)
    try:
        config = load_config(args.config_file, args.config_overrides or [])
        if args.dump_config:
            write_yaml(asdict(config), sys.stdout)
            return 0
        if args.output_dir is None:
            raise InputError("The output folder is missing: rank_study OUT --config ...")
        return run_study(config, args.output_dir)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        return 2
    except Ended as ex:
        name = signal.Signals(ex.number).name
        print(f"Ended by {name}; the same command goes on from the last checkpoints.",
              file=sys.stderr)  # fmt: skip
        return 128 + ex.number


def load_config(file: Path | None, overrides: Sequence[Mapping[str, Any]]) -> StudyConfig:
    """Defaults, then the file, then the command line, merged as fairseq2 merges a recipe's.

    Raises:
        InputError: for a file that cannot be read, an unknown key or a bad value.
    """
    merger = StandardConfigMerger()
    tree: Any = asdict(StudyConfig())
    if file is not None:
        try:
            tree = merger.merge(tree, read_yaml(file))
        except OSError as ex:
            raise InputError(f"{file} is not a readable YAML file: {ex}") from ex
    for override in overrides:
        tree = merger.merge(tree, override)
    return build_config(StudyConfig, tree, "rank_study")


def run_study(config: StudyConfig, out: Path) -> int:
    """Train what is missing and write the result.

    Returns:
        0, or 1 when a run failed or could not be read.

    Raises:
        InputError: when a run folder holds another configuration, no run is finished, or the
            folder cannot be used or is in use. Without ``jobs`` a study in use is shown.
        Ended: when a signal ends it.
    """
    check_name(out)
    if config.jobs:
        lock_folder(out)
    runs, folder = plan(config), out / "runs"
    failures = train_missing(config, runs, folder, say)
    for failure in failures:
        say(f"{failure.name} failed with exit status {failure.status}; {failure.log} ends with:")
        for line in failure.last_lines:
            say(f"    {line}")
    finished = [folder / run.name for run in runs if is_finished(folder / run.name)]
    if not finished and failures:
        return 1
    study = aggregate(finished)
    write_study(study, f"Rank study of the {config.recipe} recipe", out, [f.name for f in failures])
    for variant in study.variants:
        say(" ".join(verdict(study, variant)))
        for size in variant.sizes:
            if size.exceeds_training:
                say(
                    f"WARNING: queue size {size.queue_size:,} is longer than an epoch of "
                    f"{study.train_pairs:,} pairs, so the queue holds items more than once."
                )
    for reason in study.left_out.values():
        say(f"WARNING: left out: {reason}")
    say(f"Table: {out / 'rank_study.md'}, page: {out / 'index.html'}")
    return 1 if failures or study.left_out else 0


def _parser() -> OnceParser:
    parser = OnceParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("output_dir", type=Path, nargs="?", help="folder of the study")
    parser.add_argument("--config-file", type=Path, help="YAML file of the study")
    parser.add_argument(
        "--config", dest="config_overrides", action=ConfigAction, help="overrides of the file"
    )
    parser.add_argument(
        "--dump-config", action="store_true", help="print the configuration and do nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
