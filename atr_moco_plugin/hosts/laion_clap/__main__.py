"""``python -m atr_moco_plugin.hosts.laion_clap``: train, or ``export CHECKPOINT OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.launch import train
from atr_moco_plugin.hosts.laion_clap.options import help_text
from atr_moco_plugin.hosts.laion_clap.weights import export


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Args:
        argv: arguments after the program name.

    Returns:
        The exit code; 1 after one sentence on standard error when something is missing or wrong.
    """
    try:
        if argv[:1] == ["export"]:
            return _export(argv[1:])
        if {"-h", "--help"} & set(argv):
            print(help_text(argv))
            return 0
        return train(argv)
    except InputError as ex:
        print(f"error: {ex}", file=sys.stderr)
        return 1


def _export(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m atr_moco_plugin.hosts.laion_clap export",
        description="Write plain CLAP weights for CLAP_Module.load_ckpt.",
    )
    parser.add_argument("checkpoint", help="epoch_N.pt of a training")
    parser.add_argument("out", help="file to write")
    args = parser.parse_args(argv)
    print(f"{args.out}: {export(args.checkpoint, args.out)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
