"""Named parts, found through entry points.

A package publishes an entry point in one of :data:`GROUPS`; its name then works wherever this
package takes a name. What a part must offer is in ``docs/plugins.md``.
"""

from __future__ import annotations

import difflib
import functools
import traceback
import warnings
from typing import Any

from importlib_metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distribution,
    distributions,
)

from atr_moco_plugin.errors import InputError

GROUPS: dict[str, str] = {
    "criteria": "atr_moco_plugin.criteria",
    "audio_encoders": "atr_moco_plugin.audio_encoders",
    "text_encoders": "atr_moco_plugin.text_encoders",
    "heads": "atr_moco_plugin.heads",
    "hooks": "atr_moco_plugin.hooks",
}
"""Short name to entry-point group."""

MEMBERS: dict[str, tuple[str, ...]] = {
    "criteria": ("config_class", "measures", "queues", "on_optimizer_step"),
    "audio_encoders": ("config_class", "from_config"),
    "text_encoders": ("config_class", "from_config"),
    "heads": ("config_class",),
    "hooks": ("log", "scalars"),
}
"""What the class of a part has, by the short name of its group."""

_OWN = "atr-moco-plugin"


def available(group: str) -> dict[str, EntryPoint]:
    """What is installed in a group.

    Where packages publish one name, this package's part is taken, and among others that of the
    package whose name comes first in the alphabet; a warning names both. A package whose metadata
    cannot be read is left out with a warning.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.

    Returns:
        Name to entry point; nothing is imported.
    """
    found: dict[str, EntryPoint] = {}
    for name, points in published(group).items():
        found[name], *others = points
        for other in others:
            _warn_once(
                f"{owner(found[name])} and {owner(other)} both publish {name!r} in "
                f"{GROUPS.get(group, group)}; that of {owner(found[name])} is used. Remove one of "
                "the packages, or give one of the parts another name."
            )
    return found


def published(group: str) -> dict[str, list[EntryPoint]]:
    """Everything that packages publish in a group, by name, in the order of :func:`available`;
    the first of a list is the one that is used.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.
    """
    found: dict[str, list[EntryPoint]] = {}
    seen: set[str] = set()
    for package in distributions():
        try:
            points = package.entry_points.select(group=GROUPS.get(group, group))
        except Exception as ex:
            if _is_hidden(package, _field(package, "Name")):
                continue
            _warn_once(
                f"The entry points of {_field(package, 'Name') or 'a package'} {_where(package)} "
                f"cannot be read ({_reason(ex)}), so its parts are left out; reinstall or remove "
                "it."
            )
            continue
        # Reading the metadata of every package takes long, so only those with a part are read.
        name = _normalized(_field(package, "Name")) if points else ""
        if not points or name in seen or _is_hidden(package, name):
            continue
        if name:
            seen.add(name)
        for point in points:
            found.setdefault(point.name, []).append(point)
    return {name: sorted(found[name], key=_precedence) for name in sorted(found)}


def load(group: str, name: str) -> Any:
    """Import the part of that name.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.
        name: the name of the entry point.

    Returns:
        The object the entry point names.

    Raises:
        InputError: when nothing of that name is installed, with what is and the nearest spelling,
            or when its import fails, with the package it comes from.
    """
    points = available(group)
    if name not in points:
        near = difflib.get_close_matches(str(name), points, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"{name!r} is not installed in {GROUPS.get(group, group)}; "
            f"installed: {', '.join(points) or 'nothing'}.{hint}"
        )
    return import_part(points[name])


def import_part(point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        InputError: when that fails, with the package it comes from and why.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as ex:
        raise InputError(
            f"{point.name!r} of {owner(point)} cannot be imported from {point.value}: "
            f"{_reason(ex)}{_place(ex)}"
        ) from ex


def missing(group: str, part: Any) -> list[str]:
    """Members of :data:`MEMBERS` that a part does not have.

    Args:
        group: a short name of :data:`GROUPS` or a full entry-point group.
        part: what :func:`load` returned.
    """
    members = MEMBERS.get(group.rpartition(".")[2], ())
    return [member for member in members if not hasattr(part, member)]


def load_complete(group: str, name: str) -> Any:
    """:func:`load`, and refuse a part that lacks a member of :data:`MEMBERS`.

    Raises:
        InputError: see :func:`load`, or naming the member.
    """
    part = load(group, name)
    if absent := missing(group, part):
        kind = GROUPS.get(group, group)
        raise InputError(
            f"{name!r} of {kind} ({part.__module__}.{part.__qualname__}) has no `{absent[0]}`; "
            "docs/plugins.md says what such a part offers."
        )
    return part


def owner(point: EntryPoint) -> str:
    """Name and version of the package that publishes an entry point."""
    if point.dist is None:
        return "an unknown package"
    name = _field(point.dist, "Name") or f"a package without a name {_where(point.dist)}"
    return f"{name} {_field(point.dist, 'Version')}".strip()


def _is_hidden(package: Distribution, name: str) -> bool:
    """Whether another package of that name comes first on ``sys.path``, as for imports; an editable
    install is often found twice."""
    try:
        return distribution(name).locate_file("") != package.locate_file("")
    except (PackageNotFoundError, ValueError):  # its folder has another name, or it has none
        return False


def _field(package: Distribution, key: str) -> str:
    """A field of a package's metadata, empty where it has none or cannot be read."""
    try:
        return str(package.metadata.get(key) or "")
    except Exception:  # whatever a damaged file raises
        return ""


def _normalized(name: str) -> str:
    return name.replace("_", "-").replace(".", "-").lower()


def _where(package: Distribution) -> str:
    """The folder of a package's metadata in brackets, where it is known."""
    path = getattr(package, "_path", None)
    return f"({path})" if path else ""


def _precedence(point: EntryPoint) -> tuple[bool, str, str]:
    name = _normalized(_field(point.dist, "Name")) if point.dist else ""
    return name != _OWN, name, point.value


def _reason(error: BaseException) -> str:
    """An error in one line, with its kind: the text of a KeyError alone says little."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _place(error: BaseException) -> str:
    """Where an error of a module's own code was raised, in brackets: its author looks there."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "" if frame.filename.startswith("<") else f" ({frame.filename}, line {frame.lineno})"


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)
