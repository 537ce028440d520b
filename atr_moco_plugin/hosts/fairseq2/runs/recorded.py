"""What a run was made with, kept beside its checkpoints and compared when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.changes import changes
from atr_moco_plugin.io.json_files import object_if_whole


def check_recorded(
    file: Path,
    now: Mapping[str, Any],
    begun: Callable[[], bool],
    refusal: Callable[[str], str],
    device: Device,
    *,
    keep: bool = True,
    besides: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Compare values with those of a file where a run has begun, and write them there.

    Args:
        file: JSON.
        now: what a run is made with, of JSON's types.
        begun: whether there is something that was made with what the file has.
        refusal: the message, of what has changed.
        device: where the process group exchanges tensors.
        keep: write them; without it they may be a part of what the file has.
        besides: written with them and not compared.

    Raises:
        InputError: on every process, where a value differs.
    """

    def check() -> None:
        changed = changes(object_if_whole(file) if begun() else {}, now)
        if changed:
            raise InputError(refusal(changed))
        if keep:
            write_atomically(file, json.dumps({**now, **besides}, indent=2) + "\n")

    from_first(check, device)
