"""``export CHECKPOINT OUT``: plain CLAP weights from a training with this host."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from atr_moco_plugin.hosts.laion_clap.weights import export


def export_main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the checkpoint and the file to write.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m atr_moco_plugin.hosts.laion_clap export",
        description="Write plain CLAP weights for CLAP_Module.load_ckpt.",
    )
    parser.add_argument("checkpoint", help="epoch_N.pt of a training")
    parser.add_argument("out", help="file to write")
    args = parser.parse_args(argv)
    count = export(args.checkpoint, args.out)
    print(f"{args.out}: {count} tensors")
    return 0
