"""Named parts, found through entry points.

A package publishes an entry point in one of :data:`GROUPS`; its name then works wherever this
package takes a name.
"""

from __future__ import annotations

import difflib
from typing import Any

from importlib_metadata import EntryPoint, entry_points

GROUPS: dict[str, str] = {
    "criteria": "atr_moco_plugin.criteria",
    "audio_encoders": "atr_moco_plugin.audio_encoders",
    "text_encoders": "atr_moco_plugin.text_encoders",
    "heads": "atr_moco_plugin.heads",
    "hooks": "atr_moco_plugin.hooks",
}
"""Short name to entry-point group."""


def available(group: str) -> dict[str, EntryPoint]:
    """What is installed in a group.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.

    Returns:
        Name to entry point; nothing is imported.
    """
    found = entry_points(group=GROUPS.get(group, group))
    return {point.name: point for point in sorted(found, key=lambda point: point.name)}


def load(group: str, name: str) -> Any:
    """Import the part of that name.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.
        name: the name of the entry point.

    Returns:
        The object the entry point names.

    Raises:
        ValueError: when nothing of that name is installed, with what is and the nearest spelling,
            or when its import fails, with the package it comes from.
    """
    points = available(group)
    if name not in points:
        near = difflib.get_close_matches(str(name), points, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"{name!r} is not installed in {GROUPS.get(group, group)}; "
            f"installed: {', '.join(points) or 'nothing'}.{hint}"
        )
    point = points[name]
    try:
        return point.load()
    except Exception as ex:
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        raise ValueError(
            f"{name!r} of {owner} cannot be imported from {point.value}: {ex}"
        ) from ex
