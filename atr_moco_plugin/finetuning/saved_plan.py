"""The plan in an output folder, which a run goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from atr_moco_plugin.finetuning.choices import Choice, flattened
from atr_moco_plugin.finetuning.run_folder import has_begun

PLAN_FILE = "plan.json"
"""In the output folder: what was set, what was chosen, and why."""


def saved_plan(
    output_dir: Path, stated: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[Choice] | None:
    """The choices that a run in a folder was given, or is to be given.

    A plan counts where it is of the same command and the same facts, and where a run has begun with
    it. That run's values stay then, whatever a later command says of other keys, so that what is
    refused is what the user has changed and nothing that would be chosen otherwise today.

    Args:
        output_dir: the folder.
        stated: nested keys that the user has set, as JSON has them.
        facts: those that cost nothing to know, such as the number of clips.

    Returns:
        The choices, with the user's in front; None where they are to be made.
    """
    try:
        content = json.loads((output_dir / PLAN_FILE).read_text(encoding="utf-8"))
        choices = [Choice(**values) for values in content["choices"]]
        same = content["stated"] == stated
        same = same and all(content["facts"][name] == value for name, value in facts.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not choices or not (same or has_begun(output_dir)):
        return None
    given = flattened(stated)
    return [replace(x, value=given[x.key]) if x.key in given else x for x in choices]
