"""Training runs of any host: which host left one, and what a bundle of it is written from.

Hosts are found by their names, when a run of theirs is read: nothing here imports one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever.exported import Exported, ExportOptions


@dataclass(frozen=True)
class Maker:
    """A host that leaves training runs.

    Attributes:
        name: as a user knows it.
        package: what must be installed to read its runs, and is an extra of this package too.
        module: has ``export_run(path, options)``.
    """

    name: str
    package: str
    module: str


FAIRSEQ2 = Maker("fairseq2", "fairseq2", "atr_moco_plugin.hosts.fairseq2.export")
TRANSFORMERS = Maker("transformers", "transformers", "atr_moco_plugin.hosts.transformers.export")
LAION_CLAP = Maker("LAION-CLAP", "transformers", "atr_moco_plugin.hosts.laion_clap.export")


def made_by(path: Path) -> Maker | None:
    """The host that left a run there; None for a model, which needs no host.

    Raises:
        InputError: for a folder that is neither, or a file of a model's folder.
    """
    if path.is_file():
        if path.suffix in (".safetensors", ".json", ".bin", ".yaml"):
            raise InputError(
                f"{path} is one file of a model or a run: give the folder, {path.parent}."
            )
        return LAION_CLAP
    if not path.is_dir():
        return None  # perhaps a name on the Hub
    # First: a fine-tuning on Trainer has a config.yaml too.
    if any(path.glob("checkpoint-*")) or (path / "trainer_state.json").is_file():
        return TRANSFORMERS
    if (path / "config.yaml").is_file() or (path / "model").is_dir():
        return FAIRSEQ2
    if any((path / "checkpoints").glob("epoch_*.pt")):
        return LAION_CLAP
    if (path / "config.json").is_file():
        return None
    raise InputError(
        f"{path} is no training run and no model: looked for config.yaml (fairseq2), checkpoint-N "
        "(Trainer), checkpoints/epoch_N.pt (LAION-CLAP) and config.json (a bundle or ClapModel)."
    )


def export_run(path: Path, maker: Maker, options: ExportOptions) -> Exported:
    """What a bundle of a run is written from.

    Args:
        path: the run, or one of its checkpoints.
        maker: what :func:`made_by` says.
        options: what the run does not say.

    Raises:
        InputError: if the host is not installed, or the run cannot be read.
    """
    if find_spec(maker.package) is None:
        raise InputError(
            f"{path} is a run of {maker.name}, which is needed to read it and is not installed: "
            f"pip install 'atr-moco-plugin[{maker.package}]'."
        )
    read: Callable[[Path, ExportOptions], Exported]
    read = importlib.import_module(maker.module).export_run
    return read(path, options)
