"""Where a run starts, also once its start is gone: it has all that it took from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.finetuning.choices import flattened
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.run_folder import has_begun, settings_of
from atr_moco_plugin.finetuning.start import Start, find_start


def start_of_run(config: FinetuneConfig, out: Path) -> Start:
    """What ``init`` is. Of a run that has begun and whose start is gone, it is its best checkpoint:
    the model and the tokenizer are the same, and the weights are those of the checkpoint that the
    run goes on from anyway.

    Args:
        config: what the user has set.
        out: the output folder.

    Raises:
        InputError: as :func:`~atr_moco_plugin.finetuning.start.find_start` does, where no run has
            begun.
    """
    options = config.model.config_overrides
    try:
        return find_start(config.init, arch=config.model.arch, options=options)
    except MissingFileError:
        if not has_begun(out):
            raise
    before = flattened(settings_of(out))
    if before.get("init") != config.init:
        raise InputError(
            f"{out} holds a run with `init={before.get('init')}`, and this one is of "
            f"`init={config.init}`, which is not there: take the run's own to go on with it, or "
            "give another output folder."
        )
    own = find_start(out, options=options)
    # Not the one that it has learned since.
    temperature = before.get("criterion.config.temperature")
    return replace(own, name=config.init, temperature=temperature)
