"""``python -m atr_moco_plugin.recipes.finetune OUT --config dataset.config_overrides.root=FOLDER
init=...``: fine-tune on a folder of sounds.

The data are looked at first, sizes and steps are chosen and shown with their reasons, and it ends
with a table, a report and a bundle. ``--plan`` stops before training. It needs fairseq2 for
``loop=fairseq2`` alone.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.command_line import read_stated
from atr_moco_plugin.finetuning.keys import read_config, without_nulls
from atr_moco_plugin.finetuning.parts import merged
from atr_moco_plugin.finetuning.prepare import Prepared, prepare
from atr_moco_plugin.finetuning.run_folder import plain
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.io.processes import is_first_process
from atr_moco_plugin.io.stdout import say, warnings_in_short
from atr_moco_plugin.io.yaml12 import dump_yaml
from atr_moco_plugin.search.sources import list_sounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Fine-tune.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        0, or 2 for a mistake in the input, and 130 where it was interrupted.
    """
    args = _parser().parse_args(arguments)
    try:
        stated = read_stated(args.config_file, args.config)
        if args.dump_config:
            config, other = read_config(without_nulls(stated))
            say(dump_yaml(merged(plain(config), other)).rstrip())
            return 0
        if args.output_dir is None:
            raise InputError("The output folder is missing: finetune OUT --config KEY=VALUE ...")
        with warnings_in_short():
            return finetune_folder(stated, args.output_dir, plan_only=args.plan)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def finetune_folder(stated: Mapping[str, Any], out: Path, *, plan_only: bool = False) -> int:
    """Prepare, train with the loop that fits, and say how to use what was trained.

    Args:
        stated: nested keys that the user has set.
        out: the output folder.
        plan_only: stop before training, having refused what training would refuse.

    Raises:
        InputError: for anything that cannot be used.
    """
    tell: Callable[[str], object] = (
        say if is_first_process() else str
    )  # one of several processes speaks
    prepared = prepare(stated, out, tell=tell)
    if prepared.config.loop == "fairseq2":
        from atr_moco_plugin.hosts.fairseq2.finetune import check, run
    else:
        from atr_moco_plugin.hosts.transformers.finetune.loop import check, run
    if plan_only:
        check(prepared)
        return 0
    bundle = run(prepared)
    if bundle is None:
        tell("Stopped; the same command goes on from the last checkpoint, and writes the bundle.")
        return 0
    tell(f"Bundle: {bundle}")
    tell("To search these sounds, or those of another folder, with it:")
    for line in _search_commands(prepared, bundle):
        tell(f"  {line}")
    return 0


def _search_commands(prepared: Prepared, bundle: Path) -> list[str]:
    """Command lines to paste: the sounds of the run, searched for one of its captions."""
    sounds = _sounds(prepared.config.dataset.config_overrides.get("root"))
    clip = prepared.dataset.clips(prepared.config.dataset.valid_split)[0]
    index = str(prepared.output_dir / "index")
    lines = (
        ("index", sounds, "--model", str(bundle), "--index", index),
        ("search", clip.captions[0], "--index", index),
    )
    return [shlex.join(("python", "-m", "atr_moco_plugin", *words)) for words in lines]


def _sounds(root: object) -> str:
    """The data set's own place where `index` finds sounds there, else a word to replace."""
    try:
        path = Path(str(root)).expanduser()
        return str(path) if root is not None and list_sounds(path).has_sounds() else "SOUNDS"
    except (InputError, RuntimeError):  # a file of another kind, a home that is not known
        return "SOUNDS"


def _parser() -> OnceParser:
    parser = OnceParser(description="Fine-tune on a folder of sounds.")
    parser.add_argument("output_dir", type=Path, nargs="?", help="folder of the run")
    parser.add_argument("--config-file", type=Path, help="YAML file of keys")
    parser.add_argument(
        "--config", action="extend", nargs="*", default=[], metavar="KEY=VALUE",
        help="KEY=VALUE, which win over those of the file",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="show the plan and do not train")
    parser.add_argument(
        "--dump-config", action="store_true", help="print the configuration and do nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
